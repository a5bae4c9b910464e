"""The teacher: an exponential moving average (EMA) of the student."""

import copy
from typing import TypeVar

import torch
from torch import nn

Net = TypeVar("Net", bound=nn.Module)


def make_teacher(student: Net) -> Net:
    """A copy of the student in eval mode without gradients."""
    teacher = copy.deepcopy(student).eval()
    return teacher.requires_grad_(requires_grad=False)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Teacher = decay * teacher + (1 - decay) * student, in place.

    Deviation: integer buffers (counters, BEiT's position index) are copied. The authors' code averages them: an index 7
    becomes 6.99 and then 6.
    """
    pairs = list(zip(teacher.state_dict().values(), student.state_dict().values(), strict=True))
    averaged = [pair for pair in pairs if pair[0].is_floating_point()]
    torch._foreach_lerp_([old for old, _ in averaged], [new for _, new in averaged], 1 - decay)
    for old, new in pairs:
        if not old.is_floating_point():
            old.copy_(new)


def ema_decay(step: int, limit: float) -> float:
    """The teacher's decay at `step` (0-based), at most `limit`; 0 at the first step, a copy."""
    return min(1 - 1 / (step + 1), limit)
