"""Choose which of a bundle's graphs to load: fp32, fp16 or int8, with or without fused attention."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from service.models.bundle import Artifact, Manifest
from service.segmentation.inference.providers import CPU, CUDA, Device

Precision = Literal["auto", "fp32", "fp16", "int8"]

CPU_INFO = Path("/proc/cpuinfo")
INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "asimddp"})
"""Flags of int8 dot-product instructions, the last on ARM. Without them int8 is hardly faster than fp32."""


def choose(manifest: Manifest, wanted: Precision, provider: str, device: Device) -> Artifact:
    """Choose a graph of the wanted precision, or of fp32 if there is none or the bundle uses sliding windows.

    It has fused attention if possible, which TensorRT does not run. `provider` is onnxruntime's name.
    """
    # The window's graph exists only in fp32, and is compared with a graph of whole images.
    precision = "fp32" if manifest.tile else choose_precision(wanted, provider)
    matching = [artifact for artifact in manifest.artifacts if artifact.precision == precision]
    fp32 = [artifact for artifact in manifest.artifacts if artifact.precision == "fp32"]
    if device == "tensorrt":
        # TensorRT converts the fp32 graph to fp16 itself.
        return min(fp32, key=_fused_attention)
    return max(matching or fp32, key=_fused_attention)


def has_int8_dot_product(cpu_info: Path = CPU_INFO) -> bool:
    """Whether this CPU has int8 dot-product instructions; False if unknown."""
    try:
        return not INT8_FLAGS.isdisjoint(cpu_info.read_text().split())
    except OSError:
        return False


def choose_precision(wanted: Precision, provider: str) -> str:
    """The wanted precision; for "auto" the fastest one for the provider."""
    if wanted != "auto":
        return wanted
    if provider != CPU:
        return "fp16" if provider == CUDA else "fp32"
    return "int8" if has_int8_dot_product() else "fp32"


def _fused_attention(artifact: Artifact) -> int:
    return artifact.fused_attention or 0
