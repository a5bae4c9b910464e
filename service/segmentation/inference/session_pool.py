"""A graph in onnxruntime, held by sessions of several widths."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from service.segmentation.inference.arena import shared_arena
from service.segmentation.inference.providers import CPU, Device, check_provider, providers
from service.segmentation.inference.session import fault_of_the_machine, open_session
from service.segmentation.inference.thread_counts import thread_counts_for, width

REMEMBERED = 1000
"""Sizes of images of which it is known that they came before."""


class SessionPool:
    """`run` may be called from several threads at one time; the memory goes with the last reference.

    Attributes:
        provider: onnxruntime's name of what it runs on.
        cores: That it may use.
    """

    def __init__(
        self,
        graph: Path,
        *,
        threads: int,
        device: Device = "auto",
        tensorrt: Mapping[str, str] | None = None,
        engine_cache: Path | None = None,
    ) -> None:
        """Load the graph. See `Engine`."""
        import onnxruntime as ort  # noqa: PLC0415 - 0.7 s, in the thread that loads and not before the port is open

        self.cores = threads
        chosen = providers(ort, device, tensorrt=tensorrt, cache=engine_cache)
        self._arena = shared_arena() if chosen[0][0] == CPU else None
        if self._arena is not None:
            weakref.finalize(self, self._arena.shrink).atexit = False
        session = partial(open_session, ort, graph, providers=chosen, arena=self._arena is not None)
        widest = session(threads=threads)
        self.provider = check_provider(widest, device)
        # A GPU's threads are not these.
        narrower = thread_counts_for(threads)[:-1] if self.provider == CPU else ()
        self._sessions = {each: session(threads=each) for each in narrower} | {threads: widest}
        self._seen: dict[tuple[Any, ...], int] = {}

    @property
    def inputs(self) -> list[Any]:
        """What the graph takes: name, type, shape of each."""
        found: list[Any] = self._sessions[self.cores].get_inputs()
        return found

    @property
    def outputs(self) -> list[Any]:
        """What it gives."""
        found: list[Any] = self._sessions[self.cores].get_outputs()
        return found

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers of threads with which it can run, the smallest first."""
        return tuple(self._sessions)

    def width(self, *, free: int, load: int) -> int:
        """How many threads an inference should have now; see `widths.width`."""
        return width(self.widths, cores=self.cores, free=free, load=load)

    def run(self, outputs: list[str], inputs: Mapping[str, Any], threads: int | None = None) -> list[Any]:
        """Compute.

        Args:
            outputs: Names of what is wanted.
            inputs: Arrays by name.
            threads: One of `widths`; None: the most.

        Raises:
            OutOfMemory: It cost more than the machine has.
            Unavailable: The GPU failed.
        """
        wide = threads or self.cores
        try:
            return self._answers(wide, outputs, dict(inputs))
        except Exception as error:
            fault = fault_of_the_machine(error)
            if fault is None:
                raise
            raise fault from None
        finally:
            if self._arena is not None:
                early = self._early(wide, *(each.shape for each in inputs.values()))
                self._arena.tidy(cores=self.cores, early=early)

    def _answers(self, wide: int, outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
        found: list[Any] = self._sessions[wide].run(outputs, inputs)
        # Out of the arena: it could not give back what an answer lies in.
        return found if self._arena is None else [each.copy() for each in found]

    def _early(self, *what: Any) -> bool:
        """Whether a session has not seen these shapes often enough yet, as far as is remembered.

        As many as there are cores may be computed at one time before the first is done, each taking tensor by tensor;
        what they leave goes back when the next ones are done.
        """
        if len(self._seen) >= REMEMBERED and what not in self._seen:
            self._seen.clear()
        self._seen[what] = self._seen.get(what, 0) + 1
        return self._seen[what] <= 2 * self.cores
