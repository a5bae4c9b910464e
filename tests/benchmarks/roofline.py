"""Roofline bound of a training step: its FLOPs and bytes divided by the machine's measured peak rates."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks.implementations import OurTrainer, synchronise
from trainer.step import uses_bf16

MATRIX_SIZE, COPY_BYTES = {"cuda": 8192, "cpu": 2048}, {"cuda": 2**30, "cpu": 2**28}
BYTES_PER_PARAMETER = 10 * 4
"""Weight, gradient, AdamW's two moments and the teacher's weight: each is read and written once a step, in fp32."""


def roofline(trainer: OurTrainer, step_s: float) -> dict[str, Any]:
    """Return FLOPs and bytes of one step, the machine's peak rates, and the lower bound of the step's time.

    The bytes are a lower bound: BYTES_PER_PARAMETER for each parameter, and one write and one read of every tensor that
    the forward pass saves for the backward pass.
    """
    dtype = torch.bfloat16 if uses_bf16(trainer.recipe, trainer.device) else torch.float32
    flop, saved = _count(trainer)
    parameters = sum(parameter.numel() for parameter in trainer.run.student.parameters())
    traffic = parameters * BYTES_PER_PARAMETER + 2 * saved
    flop_per_s, bytes_per_s = matmul_peak(trainer.device, dtype), copy_peak(trainer.device)
    return {
        "precision": str(dtype).removeprefix("torch."),
        "flop": flop,
        "bytes": traffic,
        "flop_per_s": flop_per_s,
        "bytes_per_s": bytes_per_s,
        "limit_s": max(flop / flop_per_s, traffic / bytes_per_s),
        "step_s": step_s,
    }


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the FLOP/s of a large matrix product."""
    size = MATRIX_SIZE[device.type]
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / _seconds(lambda: left @ right, device)


def copy_peak(device: torch.device) -> float:
    """Measure the bytes/s of a large copy, reads and writes added."""
    source = torch.empty(COPY_BYTES[device.type], dtype=torch.uint8, device=device)
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


def _count(trainer: OurTrainer) -> tuple[int, int]:
    """Count the FLOPs of one step and the bytes that its forward pass saves, each storage once."""
    batch = next(trainer.batches())
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(note, lambda tensor: tensor):
        trainer.step(batch)
    return counter.get_total_flops(), sum(saved.values())
