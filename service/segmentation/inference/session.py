"""Opening a graph in onnxruntime, and telling the machine's faults from the graph's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from service.errors import BundleInvalid, MaskloopError, OutOfMemory, Unavailable, names_only
from service.segmentation.inference.arena import Arena

# How onnxruntime says that the machine, and not the graph, is at fault; it has no types of its own for that.
NO_MEMORY = re.compile(r"bad_alloc|failed to allocate|out of memory|ALLOC_FAILED", re.IGNORECASE)
NO_CUDA = re.compile(r"\b(CUDA|CUDNN|CUBLAS)[ _](failure|error|status)", re.IGNORECASE)


def open_session(ort: Any, graph: Path, *, threads: int, providers: list[Any], arena: bool = False) -> Any:
    """A session of a graph.

    Args:
        ort: The onnxruntime module, which takes 0.7 s to import.
        graph: The file.
        threads: Inside one inference.
        providers: As `providers.providers` gives them.
        arena: Whether it computes in `arena.shared_arena`, which must be there. Only for a CPU.

    Raises:
        BundleInvalid: onnxruntime does not load it.
        Unavailable: The machine is at fault.
    """
    options = ort.SessionOptions()
    # An explicit number: by default it counts the machine's cores, not those that a container may use, and pins them.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Not one of its own, which would keep the memory of its largest image for ever.
    options.enable_cpu_mem_arena = options.enable_mem_pattern = arena
    for name, value in Arena.USED.items() if arena else ():
        options.add_session_config_entry(name, value)
    # Threads that spin are at hand for the next operator at once. Those that spin between requests, too, take the cores
    # from decoding and from a run that trains beside us.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(graph), options, providers=providers)
    except Exception as error:
        invalid = BundleInvalid(
            f"onnxruntime does not load {graph.name} ({names_only(str(error))}): export the bundle again."
        )
        raise fault_of_the_machine(error) or invalid from None


def fault_of_the_machine(error: Exception) -> MaskloopError | None:
    """What to raise instead, where memory or the GPU failed; None where it was something else."""
    text = names_only(str(error))
    if isinstance(error, MemoryError) or NO_MEMORY.search(text):
        return OutOfMemory(
            "The machine had no memory left for this inference: scale the image down, or give the service more memory. "
            "Lower MASKLOOP_MAX_INFERENCE_BYTES so that such images are refused at once."
        )
    if NO_CUDA.search(text):
        return Unavailable(f"The GPU fails ({text}): look after its driver, or set MASKLOOP_DEVICE=cpu.")
    return None
