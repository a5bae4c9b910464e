"""A graph in onnxruntime, held by sessions of several widths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service.segmentation.providers import CPU, Device, check_provider, providers
from service.segmentation.session import fault_of_the_machine, open_session
from service.segmentation.widths import width, widths_for


class Sessions:
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
        widest = open_session(ort, graph, threads=threads, providers=chosen)
        self.provider = check_provider(widest, device)
        # A GPU's threads are not these.
        narrower = widths_for(threads)[:-1] if self.provider == CPU else ()
        self._sessions = {each: open_session(ort, graph, threads=each, providers=chosen) for each in narrower}
        self._sessions[threads] = widest

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
        try:
            found: list[Any] = self._sessions[threads or self.cores].run(outputs, dict(inputs))
        except Exception as error:
            fault = fault_of_the_machine(error)
            if fault is None:
                raise
            raise fault from None
        return found
