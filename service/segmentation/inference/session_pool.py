"""Open a graph in onnxruntime, one session per number of threads, and run it."""

from __future__ import annotations

import re
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service.errors import BundleInvalid, MaskloopError, OutOfMemory, Unavailable, names_only
from service.segmentation.inference.arena import Arena, shared_arena
from service.segmentation.inference.cancellation import (
    CancelCheck,
    Cancellation,
    InferenceCancelled,
    never_cancelled,
)
from service.segmentation.inference.providers import CPU, Device, check_provider, providers
from service.segmentation.inference.thread_counts import choose_threads, thread_counts_for

REMEMBERED_SHAPES = 1000
"""Most input shapes whose runs are counted."""

# onnxruntime reports failures of the machine only in the text of its errors.
NO_MEMORY = re.compile(r"bad_alloc|failed to allocate|out of memory|ALLOC_FAILED", re.IGNORECASE)
NO_CUDA = re.compile(r"\b(CUDA|CUDNN|CUBLAS)[ _](failure|error|status)", re.IGNORECASE)


class SessionPool:
    """The sessions of one graph. All methods are thread-safe; the memory is freed with the last reference.

    Attributes:
        provider: onnxruntime's name of the execution provider.
        cores: Most threads of one inference.
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
        """Load the graph; see `Engine`."""
        import onnxruntime as ort  # noqa: PLC0415 - takes 0.7 s; the loading thread imports it

        self.cores = threads
        chosen = providers(ort, device, tensorrt=tensorrt, cache=engine_cache)
        self._arena = shared_arena() if chosen[0][0] == CPU else None
        if self._arena is not None:
            weakref.finalize(self, self._arena.shrink).atexit = False
        largest = _open_session(ort, graph, chosen, threads, self._arena)
        self.provider = check_provider(largest, device)
        # A GPU does not compute with these threads, so it needs only one session.
        others = thread_counts_for(threads)[:-1] if self.provider == CPU else ()
        self._sessions = {count: _open_session(ort, graph, chosen, count, self._arena) for count in others}
        self._sessions[threads] = largest
        self._runs: dict[tuple[Any, ...], int] = {}

    @property
    def inputs(self) -> list[Any]:
        """The graph's inputs: name, type and shape of each."""
        found: list[Any] = self._sessions[self.cores].get_inputs()
        return found

    @property
    def outputs(self) -> list[Any]:
        """The graph's outputs: name, type and shape of each."""
        found: list[Any] = self._sessions[self.cores].get_outputs()
        return found

    @property
    def thread_counts(self) -> tuple[int, ...]:
        """Possible numbers of threads, ascending."""
        return tuple(self._sessions)

    def threads_for(self, *, free: int, load: int) -> int:
        """Number of threads for the next inference; see `thread_counts.choose_threads`."""
        return choose_threads(self.thread_counts, cores=self.cores, free=free, load=load)

    def run(
        self,
        outputs: list[str],
        inputs: Mapping[str, Any],
        threads: int | None = None,
        is_cancelled: CancelCheck = never_cancelled,
    ) -> list[Any]:
        """Compute the named outputs from inputs by name, with one of `thread_counts` (None: the most).

        A `Cancellation` stops the graph while it runs.

        Raises:
            InferenceCancelled: It was stopped.
            OutOfMemory: The machine ran out of memory.
            Unavailable: The GPU failed.
        """
        threads = threads or self.cores
        try:
            if isinstance(is_cancelled, Cancellation):
                return self._run_until(is_cancelled, threads, outputs, dict(inputs))
            return self._run(threads, outputs, dict(inputs))
        except Exception as error:
            if is_cancelled():
                raise InferenceCancelled from None
            fault = _machine_fault(error)
            if fault is None:
                raise
            raise fault from None
        finally:
            if self._arena is not None:
                is_new = self._count_run(threads, *(array.shape for array in inputs.values()))
                self._arena.shrink_after_run(cores=self.cores, is_new_shape=is_new)

    def _run_until(
        self, cancellation: Cancellation, threads: int, outputs: list[str], inputs: dict[str, Any]
    ) -> list[Any]:
        import onnxruntime as ort  # noqa: PLC0415 - loaded with the session

        options = ort.RunOptions()
        with cancellation.stopping(lambda: setattr(options, "terminate", True)):
            return self._run(threads, outputs, inputs, options)

    def _run(self, threads: int, outputs: list[str], inputs: dict[str, Any], options: Any = None) -> list[Any]:
        found: list[Any] = self._sessions[threads].run(outputs, inputs, options)
        # The arena cannot free a region that contains an output, so outputs are copied.
        return found if self._arena is None else [array.copy() for array in found]

    def _count_run(self, *key: Any) -> bool:
        """Count a run of a session with these input shapes; return whether it is among the first `2 * cores`.

        Up to `cores` runs may begin before the first ends, each allocating per tensor; the next ones free their memory.
        """
        if len(self._runs) >= REMEMBERED_SHAPES and key not in self._runs:
            self._runs.clear()
        self._runs[key] = self._runs.get(key, 0) + 1
        return self._runs[key] <= 2 * self.cores


def _open_session(ort: Any, graph: Path, chosen: list[Any], threads: int, arena: Arena | None) -> Any:
    """Open a session. Raises BundleInvalid if the graph does not load, Unavailable if the machine is the cause."""
    options = ort.SessionOptions()
    # By default onnxruntime counts the cores of the machine, not those of the container, and pins its threads.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # A session's own arena would keep the memory of its largest image forever.
    options.enable_cpu_mem_arena = options.enable_mem_pattern = arena is not None
    for name, value in arena.SESSION_CONFIG.items() if arena is not None else ():
        options.add_session_config_entry(name, value)
    # Spinning threads start the next operator without delay. Between requests they must stop: they would take cores
    # from decoding and training.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(graph), options, providers=chosen)
    except Exception as error:
        invalid = BundleInvalid(
            f"onnxruntime does not load {graph.name} ({names_only(str(error))}): export the bundle again."
        )
        raise _machine_fault(error) or invalid from None


def _machine_fault(error: Exception) -> MaskloopError | None:
    """The error to raise if memory or the GPU failed; None if the graph or its input is at fault."""
    text = names_only(str(error))
    if isinstance(error, MemoryError) or NO_MEMORY.search(text):
        return OutOfMemory(
            "The machine ran out of memory during this inference: scale the image down, give the service more memory, "
            "or lower MASKLOOP_MAX_INFERENCE_BYTES so that such images are rejected before they are run."
        )
    if NO_CUDA.search(text):
        return Unavailable(f"The GPU failed ({text}): check its driver, or set MASKLOOP_DEVICE=cpu.")
    return None
