"""Which of a bundle's graphs answers here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from service.models.bundle import Artifact, Manifest
from service.segmentation.inference.providers import CPU, CUDA, Device

Wanted = Literal["auto", "fp32", "fp16", "int8"]

CPU_INFO = Path("/proc/cpuinfo")
# Multiplies bytes and adds the products up in one step; without it, int8 gains little. The last is ARM's.
INTEGER_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "asimddp"})


def choose(manifest: Manifest, wanted: Wanted, provider: str, device: Device) -> Artifact:
    """The graph to load.

    Args:
        manifest: The bundle's.
        wanted: What a person has set; "auto": what suits the provider.
        provider: onnxruntime's, that it will run on.
        device: What was asked for; TensorRT has no use for onnxruntime's own operators.

    Returns:
        One of the wanted precision, or else of fp32; of two, the one whose attention is fused. Where the bundle answers
        by windows, fp32.
    """
    # Of windows there is a graph in fp32 alone, which is held against its like.
    precision = "fp32" if manifest.tile else suited(wanted, provider)
    fitting = [each for each in manifest.artifacts if each.precision == precision]
    full = [each for each in manifest.artifacts if each.precision == "fp32"]
    if device == "tensorrt":
        # TensorRT makes its own fp16 of the fp32 graph.
        return min(full, key=_fused)
    return max(fitting or full, key=_fused)


def multiplies_bytes(cpu_info: Path = CPU_INFO) -> bool:
    """Whether this CPU has instructions for sums of products of bytes."""
    try:
        return not INTEGER_FLAGS.isdisjoint(cpu_info.read_text().split())
    except OSError:
        return False


def suited(wanted: Wanted, provider: str) -> str:
    """The precision that is wanted, or the fastest for a provider."""
    if wanted != "auto":
        return wanted
    if provider != CPU:
        return "fp16" if provider == CUDA else "fp32"
    return "int8" if multiplies_bytes() else "fp32"


def _fused(artifact: Artifact) -> int:
    return artifact.fused_attention or 0
