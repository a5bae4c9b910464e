"""Which of onnxruntime's execution providers runs a graph, and how it is told to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from service.errors import Unavailable

Device = Literal["auto", "cpu", "cuda", "tensorrt"]

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
ASKED_FOR = {"cuda": CUDA, "tensorrt": TENSORRT}

# HEURISTIC: the exhaustive search runs again for every new image size. SameAsRequested: the arena doubles its memory
# otherwise.
CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}


def providers(
    ort: Any, device: Device, *, tensorrt: Mapping[str, str] | None = None, cache: Path | None = None
) -> list[Any]:
    """What to hand to a session, the one to be used first.

    Args:
        ort: The onnxruntime module.
        device: "auto" takes CUDA where it is; all but it and "cpu" refuse to do without.
        tensorrt: Options of the TensorRT provider, from the bundle's manifest.
        cache: Where TensorRT keeps its engines; an engine takes minutes to build.

    Raises:
        Unavailable: The one that is asked for is not in this onnxruntime.
    """
    there = ort.get_available_providers()
    wanted = ASKED_FOR.get(device)
    if wanted is not None and wanted not in there:
        raise Unavailable(
            f"{device} was asked for and this onnxruntime has {', '.join(there)}: install the `gpu` extra in the place "
            "of onnxruntime, or set MASKLOOP_DEVICE=auto."
        )
    if device == "cpu" or CUDA not in there:
        return [(CPU, {})]
    # The wheel's own CUDA libraries have to be in the process before the first session looks for them.
    ort.preload_dlls()
    gpu: list[Any] = [(CUDA, CUDA_OPTIONS)]
    if wanted == TENSORRT:
        gpu.insert(0, (TENSORRT, {**(tensorrt or {}), **_kept_in(cache)}))
    return [*gpu, (CPU, {})]


def expected_provider(device: Device) -> str:
    """Where a graph will run, as far as can be told before it is loaded. Raises Unavailable."""
    import onnxruntime as ort  # noqa: PLC0415 - 0.7 s, in the thread that loads and not before the port is open

    name: str = providers(ort, device)[0][0]
    return name


def check_provider(session: Any, device: Device) -> str:
    """The provider that a session runs on.

    Raises:
        Unavailable: Another was asked for, and onnxruntime fell back without a word.
    """
    found: str = session.get_providers()[0]
    if ASKED_FOR.get(device, found) != found:
        raise Unavailable(
            f"{device} was asked for and onnxruntime fell back to {found}: look after the driver and the libraries of "
            "the `gpu` extra, or set MASKLOOP_DEVICE=auto."
        )
    return found


def _kept_in(cache: Path | None) -> dict[str, str]:
    if cache is None:
        return {}
    cache.mkdir(parents=True, exist_ok=True)
    return {"trt_engine_cache_path": str(cache), "trt_timing_cache_path": str(cache)}
