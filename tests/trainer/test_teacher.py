"""The EMA teacher: averaged and copied buffers, and the decay schedule."""

import copy

import pytest
import torch
from torch import Tensor, nn

from trainer.teacher import ema_decay, make_teacher, update_teacher


class Counting(nn.Module):
    """A weight, a running mean, and the two kinds of integer buffers in networks: a counter and a position index."""

    weight: Tensor
    position: Tensor
    counter: Tensor
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.register_buffer("mean", torch.tensor([0.5]))
        self.register_buffer("counter", torch.tensor(0))
        self.register_buffer("position", torch.tensor([[0, 3], [7, 1]]))


def moved(student: Counting) -> Counting:
    with torch.no_grad():
        student.weight += 1
        student.mean += 4
        student.counter += 7
    return student


def test_floats_are_averaged_and_integers_are_copied() -> None:
    student = Counting()
    teacher = make_teacher(student)
    update_teacher(teacher, moved(student), decay=0.75)
    assert teacher.weight.tolist() == pytest.approx([1.25, 2.25])
    assert teacher.mean.tolist() == pytest.approx([1.5])
    assert teacher.counter == 7
    assert torch.equal(teacher.position, torch.tensor([[0, 3], [7, 1]])), "averages are rounded down"
    assert teacher.position.dtype == torch.int64


def test_position_index_is_unchanged_after_2000_updates() -> None:
    """An averaged index 7 (as in BEiT) would become 6.99, and so 6, at the first update."""
    student = Counting()
    teacher = make_teacher(student)
    for _ in range(2000):
        update_teacher(teacher, student, decay=0.996)
    assert torch.equal(teacher.position, student.position)
    torch.testing.assert_close(teacher.weight, student.weight)


def test_decay_zero_is_an_exact_copy() -> None:
    """With ema_decay = 0 the teacher equals the student."""
    torch.manual_seed(0)
    student = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(5, 5))
    teacher = make_teacher(student)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.copy_(torch.randn_like(parameter) * 1e3)
    student[1](torch.randn(2, 8, 4, 4))
    update_teacher(teacher, student, decay=0.0)
    for name, tensor in student.state_dict().items():
        assert torch.equal(teacher.state_dict()[name], tensor), name


def test_teacher_is_a_frozen_copy_in_eval_mode() -> None:
    student = Counting().train()
    teacher = make_teacher(student)
    assert not teacher.training
    assert student.training
    assert not teacher.weight.requires_grad
    assert student.weight.requires_grad
    before = copy.deepcopy(teacher.state_dict())
    moved(student)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


def test_update_equals_a_loop_over_parameters() -> None:
    torch.manual_seed(0)
    student = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    teacher = make_teacher(student)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn_like(parameter))
    expected = [0.9 * old + 0.1 * new for old, new in zip(teacher.parameters(), student.parameters(), strict=True)]
    update_teacher(teacher, student, decay=0.9)
    torch.testing.assert_close(list(teacher.parameters()), expected)


def test_decay_rises_to_its_limit() -> None:
    """The first step copies the student; later decays are 1/2, 2/3, ... up to the limit."""
    assert [ema_decay(step, 0.996) for step in (0, 1, 3, 249, 10_000)] == pytest.approx([0, 1 / 2, 3 / 4, 0.996, 0.996])
    assert ema_decay(500, 0.0) == 0
