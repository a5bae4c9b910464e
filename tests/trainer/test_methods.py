"""The parts of UniMatch V2, each by its property."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.conftest import TINY_CONVNET, TINY_VIT
from trainer.config import Model, UniMatch
from trainer.data.loaders import LabelledBatch, UnlabelledBatch
from trainer.data.photometric import strong_view
from trainer.losses import consistency_loss, labelled_loss
from trainer.methods.complementary_dropout import complementary_masks
from trainer.methods.cutmix import AREA, draw_boxes, mix
from trainer.methods.pseudo_labels import pseudo_labels
from trainer.methods.unimatch_v2 import unimatch_v2_loss
from trainer.models.segmenter import Segmenter, build_segmenter, to_float
from trainer.schedules import ema_decay, poly_factor
from trainer.teacher import make_teacher, update_teacher


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(model: dict[str, object]) -> Segmenter:
    torch.manual_seed(0)
    return build_segmenter(Model(**model), 2)  # type: ignore[arg-type]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), height=st.integers(16, 80), width=st.integers(16, 80))
def test_cutmix_boxes_have_the_published_area(seed: int, height: int, width: int) -> None:
    box_BHW = draw_boxes(4, (height, width), 1.0, generator(seed))
    for box_HW in box_BHW:
        rows, columns = box_HW.any(1).sum().item(), box_HW.any(0).sum().item()
        assert rows * columns == box_HW.sum().item(), "one solid box"
        slack = (rows + columns + 1) / (height * width)  # sides are whole pixels
        assert AREA[0] - slack <= box_HW.float().mean().item() <= AREA[1] + slack


def test_cutmix_areas_are_spread_evenly_over_the_published_range() -> None:
    """Redrawing the area until a box fits would favour small ones: a mean of 0.14 instead of 0.21."""
    areas = draw_boxes(2000, (128, 128), 1.0, generator()).float().mean(dim=(1, 2))
    assert areas.mean().item() == pytest.approx(sum(AREA) / 2, abs=0.01)
    assert (areas > sum(AREA) / 2).float().mean().item() == pytest.approx(0.5, abs=0.04)


def test_cutmix_probability_zero_draws_no_box() -> None:
    assert not draw_boxes(8, (16, 16), 0.0, generator()).any()


def test_mix_takes_the_box_from_another_image_and_treats_all_tensors_alike() -> None:
    image_BCHW = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 2, 4, 4)
    box_BHW = torch.zeros(3, 4, 4, dtype=torch.bool)
    box_BHW[:, :2] = True
    mixed_BCHW, mixed_BHW = mix(image_BCHW, box_BHW), mix(image_BCHW[:, 0], box_BHW)
    assert torch.equal(mixed_BCHW[:, 0], mixed_BHW)
    assert (mixed_BHW[:, 2:] == torch.arange(3.0).view(3, 1, 1)).all()
    assert (mixed_BHW[:, :2] != torch.arange(3.0).view(3, 1, 1)).all(), "no image is its own partner"


def test_complementary_masks_are_the_papers() -> None:
    """At probability 0.5: 0 or 2 for the first view, 2 minus that for the second, 1 and 1 for the half left whole."""
    first, second = complementary_masks(
        6, (24, 24, 24, 24), probability=0.5, undropped_fraction=0.5, generator=generator()
    )
    assert all(mask is first[0] for mask in first), "a plain ViT's four maps share one mask"
    assert torch.equal(first[0] + second[0], torch.full((6, 24), 2.0))
    whole_B = (first[0] == 1).all(1)
    assert whole_B.sum() == 3
    assert set(first[0][~whole_B].flatten().tolist()) == {0.0, 2.0}


def test_complementary_masks_differ_by_level_where_widths_do() -> None:
    first, second = complementary_masks(
        2, (8, 16, 32, 64), probability=0.5, undropped_fraction=0.0, generator=generator()
    )
    assert [mask.shape for mask in first] == [(2, 8), (2, 16), (2, 32), (2, 64)]
    assert all(torch.equal(a + b, torch.full_like(a, 2.0)) for a, b in zip(first, second, strict=True))


def test_complementary_masks_keep_the_expectation() -> None:
    first, second = complementary_masks(400, (64,), probability=0.25, undropped_fraction=0.0, generator=generator())
    assert first[0].mean().item() == pytest.approx(1, abs=0.02)
    assert second[0].mean().item() == pytest.approx(1, abs=0.05)


def test_strong_views_are_drawn_independently_and_repeat_with_their_generator() -> None:
    image_BCHW = torch.rand(2, 3, 24, 24, generator=generator(1))
    draws = generator(2)
    first, second = strong_view(image_BCHW, draws), strong_view(image_BCHW, draws)
    assert not torch.equal(first, second)
    assert torch.equal(first, strong_view(image_BCHW, generator(2)))
    assert first.shape == image_BCHW.shape
    assert first.min() >= 0
    assert first.max() <= 1


def test_ema_copies_integer_buffers_and_averages_the_rest() -> None:
    student = tiny(TINY_CONVNET)
    teacher = make_teacher(student)
    name, counter = next((n, b) for n, b in student.named_buffers() if n.endswith("num_batches_tracked"))
    counter.fill_(7)
    weight = next(student.parameters())
    before = next(teacher.parameters()).clone()
    with torch.no_grad():
        weight.add_(1)
    update_teacher(teacher, student, decay=0.75)
    assert dict(teacher.named_buffers())[name] == 7
    torch.testing.assert_close(next(teacher.parameters()), before + 0.25)
    assert not teacher.training


def test_schedules_at_their_ends() -> None:
    assert [poly_factor(step, 100, 0.9) for step in (0, 50, 99)] == pytest.approx([1, 0.5**0.9, 0.01**0.9])
    assert [ema_decay(step, 0.996) for step in (0, 1, 249, 10_000)] == pytest.approx([0, 0.5, 0.996, 0.996])


@pytest.mark.parametrize("model", [TINY_VIT, TINY_CONVNET], ids=["vit", "convnet"])
def test_unimatch_step_equals_the_naive_reference(model: dict[str, object]) -> None:
    """The same random choices, written out as the authors do: views one after the other, separate forwards."""
    student = tiny(model).eval()  # eval: with batch statistics, one forward and separate ones differ by design
    teacher = make_teacher(student)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator(9)) * 0.05)
    draws = generator(3)
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=draws)
    labelled = LabelledBatch(images, torch.randint(0, 2, (2, 32, 32), generator=draws))
    inside = torch.ones(3, 32, 32, dtype=torch.bool)
    inside[0, 20:] = False
    unlabelled = UnlabelledBatch(torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8, generator=draws), inside)
    config = UniMatch(confidence_threshold=0.5)

    ours = unimatch_v2_loss(
        student, teacher, labelled, unlabelled, config=config, ignore_index=255, generator=generator(4)
    )

    rng = generator(4)
    weak = to_float(unlabelled.image_BHWC)
    label, confidence, _ = pseudo_labels(teacher, weak, inside)
    strong_1 = strong_view(weak, rng)
    box_1 = draw_boxes(3, (32, 32), 0.5, rng)
    strong_2 = strong_view(weak, rng)
    box_2 = draw_boxes(3, (32, 32), 0.5, rng)
    masks_1, masks_2 = complementary_masks(
        3, student.encoder.channels, probability=0.5, undropped_fraction=0.5, generator=rng
    )
    loss_x = labelled_loss(student(to_float(labelled.image_BHWC)), labelled.mask_BHW, 255)
    loss_1 = consistency_loss(
        student(mix(strong_1, box_1), dropout=masks_1),
        mix(label, box_1),
        mix(confidence, box_1),
        mix(inside, box_1),
        threshold=0.5,
    )
    loss_2 = consistency_loss(
        student(mix(strong_2, box_2), dropout=masks_2),
        mix(label, box_2),
        mix(confidence, box_2),
        mix(inside, box_2),
        threshold=0.5,
    )
    torch.testing.assert_close(ours["loss"], (loss_x + (loss_1 + loss_2) / 2) / 2)


def test_the_teacher_gets_no_gradient_and_the_student_does() -> None:
    student = tiny(TINY_VIT)
    teacher = make_teacher(student)
    before = copy.deepcopy(teacher.state_dict())
    image = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    losses = unimatch_v2_loss(
        student,
        teacher,
        LabelledBatch(image, torch.zeros(2, 32, 32, dtype=torch.long)),
        UnlabelledBatch(image, torch.ones(2, 32, 32, dtype=torch.bool)),
        config=UniMatch(confidence_threshold=0.0),
        ignore_index=255,
        generator=generator(),
    )
    losses["loss"].backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in student.head.classify.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
