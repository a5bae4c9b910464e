"""The environment of a run, so that its result can be explained and repeated."""

import importlib.metadata
import platform
from pathlib import Path

import torch

from trainer.checkpoint import code_version

LIBRARIES = ("torchvision", "timm", "accelerate", "numpy", "pillow")
CPU_INFO = Path("/proc/cpuinfo")


def describe_environment(device: torch.device) -> dict[str, str]:
    """Return versions of code, Python and libraries, and the names of platform, CPU and device; no paths."""
    return {
        "maskloop": code_version(),
        "python": platform.python_version(),
        # With the build, which names CUDA's version.
        "torch": str(torch.__version__),
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": str(torch.get_num_threads()),
    }


def _cpu_name() -> str:
    lines = CPU_INFO.read_text(errors="replace").splitlines() if CPU_INFO.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
