"""What a machine offers for training: cores, or the memory of a GPU."""

import os
from dataclasses import dataclass

import torch

from trainer.processes import pick_device

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Machine:
    """The device of a run: "cpu" or "cuda", cores that this process may use, and GiB of GPU memory (0 on a CPU)."""

    kind: str
    cores: int
    gpu_gib: float = 0.0

    def __str__(self) -> str:
        return f"a GPU with {self.gpu_gib:.0f} GiB" if self.kind == "cuda" else f"{self.cores} CPU cores"


def find_machine(device: str) -> Machine:
    """The machine of `train.device`. Raises RunError if the device is not available."""
    picked = pick_device(device)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if picked.type != "cuda":
        return Machine(picked.type, cores)
    return Machine(picked.type, cores, torch.cuda.get_device_properties(picked).total_memory / GIB)
