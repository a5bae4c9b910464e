"""What a step must cost at least on a machine: its FLOPs and bytes over what the machine was measured to do."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks.sides import Ours, synchronise
from trainer.devices import uses_bf16

BYTES_A_PARAMETER = 10 * 4
"""Weight, gradient, AdamW's two moments and the teacher's weight: each is read and written once a step, in fp32."""


def limit_figures(side: Ours, step_s: float) -> dict[str, Any]:
    """FLOPs and bytes of one step, the machine's peaks, and the time below which the step cannot be.

    The bytes are a lower bound: parameters as above, and every tensor that the forward pass keeps for the backward pass
    written once and read once.
    """
    dtype = torch.bfloat16 if uses_bf16(side.recipe, side.device) else torch.float32
    flop, kept = _count(side)
    parameters = sum(parameter.numel() for parameter in side.run.student.parameters())
    moved = parameters * BYTES_A_PARAMETER + 2 * kept
    flop_per_s, bytes_per_s = matmul_peak(side.device, dtype), copy_peak(side.device)
    return {
        "precision": str(dtype).removeprefix("torch."),
        "flop": flop,
        "bytes": moved,
        "flop_per_s": flop_per_s,
        "bytes_per_s": bytes_per_s,
        "limit_s": max(flop / flop_per_s, moved / bytes_per_s),
        "step_s": step_s,
    }


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product."""
    size = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / _seconds(lambda: left @ right, device)


def copy_peak(device: torch.device) -> float:
    """Bytes/s of a large copy, read and written."""
    source = torch.empty(2**30 if device.type == "cuda" else 2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: target.copy_(source), device)


def _seconds(work: Callable[[], Tensor], device: torch.device) -> float:
    times = []
    for _ in range(12):
        synchronise(device)
        began = time.perf_counter()
        work()
        synchronise(device)
        times.append(time.perf_counter() - began)
    return median(times[2:])


def _count(side: Ours) -> tuple[int, int]:
    """FLOPs of one step, and bytes that its forward pass keeps, each storage once."""
    batch = next(side.batches())
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(note, lambda tensor: tensor):
        side.step(batch)
    return counter.get_total_flops(), sum(kept.values())
