"""What imports and exports of labels share: a place, a folder, and the trainer's program, until the answer is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends

from service.api.dependencies import StateOf
from service.conversion.request_folder import request_folder
from service.conversion.trainer_process import TrainerProcess, trainer_process
from service.errors import Overloaded, StorageUnwritable, TrainerMissing, Unavailable
from service.settings import Settings

CONVERSION_ERRORS = (Overloaded, TrainerMissing, Unavailable, StorageUnwritable)


@dataclass(frozen=True, slots=True)
class Conversion:
    """An import or export in progress. Its files and its program end with the answer."""

    folder: Path
    settings: Settings
    stack: AsyncExitStack

    async def start(self, *arguments: str) -> TrainerProcess:
        """Start a command of the trainer."""
        return await self.stack.enter_async_context(trainer_process(self.settings, self.folder, *arguments))


async def _open(state: StateOf) -> AsyncIterator[Conversion]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(state.conversion_gate.admit())
        folder = await stack.enter_async_context(request_folder(state.settings.tmp_dir))
        yield Conversion(folder, state.settings, stack)


ConversionOf = Annotated[Conversion, Depends(_open)]
