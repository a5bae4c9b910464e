"""Run a command of the trainer for a request: stream its output, and end it with the request.

The child has its own process group, and ends with this process, even if that is killed. Its temporary files are in the
folder of the request.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import structlog
from anyio import CancelScope

from service.errors import ConversionFailed, ConversionImpossible, TrainerMissing
from service.parent_watch import killed_with_parent
from service.settings import Settings

log = structlog.stdlib.get_logger(__name__)

CHUNK = 256 * 1024
# The list of classes is one line.
MAX_LINE_BYTES = 1 << 26
LOG_TAIL_BYTES = 4000
LOG = "log.txt"
# Exit code and message of argparse.
USAGE, USAGE_ERROR = 2, re.compile(r": error: (.+)\s*\Z")

Event = dict[str, Any]


class TrainerProcess:
    """A running command. Its standard error goes to a file, in which the last error event counts."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path, stall_s: float) -> None:
        assert process.stdout is not None  # noqa: S101 - opened as a pipe
        self._process, self._output, self._folder = process, process.stdout, folder
        self._stall_s = stall_s

    async def events(self) -> list[Event]:
        """Return the events that it prints until it ends. Raises as `end`."""
        events = []
        while line := await self._unless_stalled(self._output.readline()):
            if event := _event(line):
                events.append(event)
        await self.end([event for event in events if event["event"] == "error"])
        return events

    async def first_bytes(self) -> bytes:
        """Return the first bytes of its output. Raises as `end` if it fails before it has written any."""
        first = await self._unless_stalled(self._output.read(CHUNK))
        if not first:
            await self.end()
        return first

    async def all_bytes(self, first: bytes) -> AsyncIterator[bytes]:
        """Yield `first`, then the rest of its output. Raises as `end`."""
        chunk = first
        while chunk:
            yield chunk
            chunk = await self._unless_stalled(self._output.read(CHUNK))
        await self.end()

    async def _unless_stalled(self, output: Awaitable[bytes]) -> bytes:
        try:
            async with asyncio.timeout(self._stall_s):
                return await output
        except TimeoutError:
            raise ConversionFailed(
                f"The conversion printed nothing for {self._stall_s:.0f} s: convert fewer images, or raise "
                "MASKLOOP_STALL_S."
            ) from None

    async def end(self, errors: list[Event] | None = None) -> None:
        """Wait until it ends.

        Raises:
            ConversionImpossible: The trainer cannot use the data; the message is its own.
            TrainerMissing: The interpreter has no trainer.
            OSError: The disk is full, or cannot be written.
            ConversionFailed: It was killed, or has a fault; the log has the details.
        """
        code = await self._process.wait()
        if code == 0:
            return
        text = await asyncio.to_thread((self._folder / LOG).read_text, errors="replace")
        found = errors or [event for line in text.splitlines() if (event := _event(line)) and event["event"] == "error"]
        if "No module named" in text:
            raise TrainerMissing(
                "MASKLOOP_TRAINER_PYTHON has no trainer: install maskloop in it, or leave the setting empty."
            )
        if code == USAGE and (problem := USAGE_ERROR.search(text)):
            raise ConversionImpossible(_in_terms_of_http(problem[1]))
        if not found or "Traceback" in text:
            log.error("a conversion failed", exit_code=code, log=text[-LOG_TAIL_BYTES:])
            raise ConversionFailed(_what_happened(code))
        message, number = str(found[-1].get("message")), found[-1].get("errno")
        if isinstance(number, str) and hasattr(errno, number):
            raise OSError(getattr(errno, number), message, str(self._folder))
        raise ConversionImpossible(_in_terms_of_http(message))


@asynccontextmanager
async def trainer_process(settings: Settings, folder: Path, *arguments: str) -> AsyncIterator[TrainerProcess]:
    """Start `python -m trainer ARGUMENTS`, and kill it at the end of the block. `folder` is that of the request."""
    with (folder / LOG).open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *killed_with_parent([settings.python, "-m", "trainer", *arguments]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, "TMPDIR": str(folder)},
            start_new_session=True,
            limit=MAX_LINE_BYTES,
        )
    try:
        yield TrainerProcess(process, folder, settings.stall_s)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with CancelScope(shield=True):
            await process.wait()


def _event(line: bytes | str) -> Event | None:
    with suppress(ValueError):
        event = json.loads(line)
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            return event
    return None


def _what_happened(code: int) -> str:
    if code == -signal.SIGKILL:
        return "The conversion was killed, most likely because the system ran out of memory: convert fewer images."
    return "The conversion failed; the log of the service has the details. Please report it with that log."


def _in_terms_of_http(message: str) -> str:
    hint = " (an option such as `--rest ignored` is the parameter `?rest=ignored` here)" if "--" in message else ""
    return f"{message}{hint}"
