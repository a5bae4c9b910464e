"""Choose onnxruntime's execution providers for a device, and their options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from service.errors import Unavailable

Device = Literal["auto", "cpu", "cuda", "tensorrt"]

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
REQUIRED = {"cuda": CUDA, "tensorrt": TENSORRT}
"""The provider that must run the graph, by device; other devices accept any."""

# HEURISTIC: the exhaustive search would run again for every new image size. SameAsRequested: by default the arena
# doubles its memory each time it grows.
CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}


def providers(
    ort: Any, device: Device, *, tensorrt: Mapping[str, str] | None = None, cache: Path | None = None
) -> list[Any]:
    """The `providers` argument of an InferenceSession, the preferred one first; "auto" uses CUDA if available.

    `tensorrt` holds TensorRT's options from the bundle's manifest. TensorRT keeps its engines in the folder `cache`, as
    building one takes minutes.

    Raises:
        Unavailable: This onnxruntime lacks the provider of the device.
    """
    available = ort.get_available_providers()
    required = REQUIRED.get(device)
    if required is not None and required not in available:
        raise Unavailable(
            f"The device is {device}, but this onnxruntime has only {', '.join(available)}: install the `gpu` extra, "
            "which replaces onnxruntime, or set MASKLOOP_DEVICE=auto."
        )
    if device == "cpu" or CUDA not in available:
        return [(CPU, {})]
    # Loads the CUDA libraries of the wheel, before the first session searches for them.
    ort.preload_dlls()
    gpu: list[Any] = [(CUDA, CUDA_OPTIONS)]
    if required == TENSORRT:
        gpu.insert(0, (TENSORRT, {**(tensorrt or {}), **_cache_options(cache)}))
    return [*gpu, (CPU, {})]


def expected_provider(device: Device) -> str:
    """The provider that will probably run a graph; only a loaded session knows. Raises Unavailable."""
    import onnxruntime as ort  # noqa: PLC0415 - takes 0.7 s; the loading thread imports it

    name: str = providers(ort, device)[0][0]
    return name


def check_provider(session: Any, device: Device) -> str:
    """The provider that runs a session.

    Raises:
        Unavailable: onnxruntime silently fell back to a provider that the device does not allow.
    """
    found: str = session.get_providers()[0]
    if REQUIRED.get(device, found) != found:
        raise Unavailable(
            f"The device is {device}, but onnxruntime fell back to {found}: check the driver and the libraries of the "
            "`gpu` extra, or set MASKLOOP_DEVICE=auto."
        )
    return found


def _cache_options(cache: Path | None) -> dict[str, str]:
    if cache is None:
        return {}
    cache.mkdir(parents=True, exist_ok=True)
    return {"trt_engine_cache_path": str(cache), "trt_timing_cache_path": str(cache)}
