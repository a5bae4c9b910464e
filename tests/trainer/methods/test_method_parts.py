"""Properties of CutMix, channel dropout, pseudo-labels and adaptive thresholds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.trainer.conftest import TINY_CONVNET, TINY_VIT
from trainer.config import Model
from trainer.methods.channel_dropout import Kind, channel_masks, random_mask
from trainer.methods.class_thresholds import DECAY, ClassThresholds
from trainer.methods.cutmix import AREA, ASPECT, draw_boxes, inside_boxes, mix
from trainer.methods.pseudo_labels import PseudoLabels, pseudo_labels
from trainer.models.segmenter import build_segmenter

# B batch, U images, C channels, K classes, H W pixels


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# CutMix


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), height=st.integers(16, 80), width=st.integers(16, 80))
def test_cutmix_boxes_lie_inside_and_have_the_published_area_and_aspect(seed: int, height: int, width: int) -> None:
    for top, left, bottom, right in draw_boxes(4, (height, width), 1.0, generator(seed)).tolist():
        assert 0 <= top < bottom <= height
        assert 0 <= left < right <= width
        rows, columns = bottom - top, right - left
        slack = (rows + columns + 1) / (height * width)  # sides are whole pixels
        assert AREA[0] - slack <= rows * columns / (height * width) <= AREA[1] + slack
        assert ASPECT[0] <= (rows + 0.5) / (columns - 0.5)
        assert (rows - 0.5) / (columns + 0.5) <= ASPECT[1]


def test_cutmix_areas_are_uniform_over_the_published_range() -> None:
    """Redrawing the area until a box fits would favour small boxes: a mean of 0.14 instead of 0.21."""
    top, left, bottom, right = draw_boxes(2000, (128, 128), 1.0, generator()).unbind(dim=1)
    areas = (bottom - top) * (right - left) / 128**2
    assert areas.mean().item() == pytest.approx(sum(AREA) / 2, abs=0.01)
    assert (areas > sum(AREA) / 2).float().mean().item() == pytest.approx(0.5, abs=0.04)


def test_cutmix_probability_is_the_fraction_of_mixed_images() -> None:
    assert not draw_boxes(8, (16, 16), 0.0, generator()).any()
    mixed = draw_boxes(2000, (16, 16), 0.5, generator()).any(dim=1).float().mean().item()
    assert mixed == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("size", [(64, 1024), (1024, 64)])
def test_cutmix_boxes_of_elongated_crops_lie_inside_and_keep_their_area(size: tuple[int, int]) -> None:
    """For an area of 0.4 no aspect ratio of the published range fits, so drawing until one fits would never end."""
    top, left, bottom, right = draw_boxes(200, size, 1.0, generator()).unbind(dim=1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top < bottom).all()
    assert (left < right).all()
    assert (bottom <= size[0]).all()
    assert (right <= size[1]).all()
    areas = (bottom - top) * (right - left) / (size[0] * size[1])
    assert areas.mean().item() == pytest.approx(sum(AREA) / 2, abs=0.03)
    assert areas.max().item() == pytest.approx(AREA[1], abs=0.02)


def test_mix_of_a_hand_worked_case() -> None:
    """Three images of 2x2; the first gets its right column from the last, the third its upper row from the second."""
    box_U4 = torch.tensor([[0, 1, 2, 2], [0, 0, 0, 0], [0, 0, 1, 2]])
    inside_UHW = inside_boxes(box_U4, (2, 2))
    images_UHW = torch.tensor([[[1, 2], [3, 4]], [[5, 6], [7, 8]], [[9, 10], [11, 12]]])
    assert mix(images_UHW, inside_UHW).tolist() == [[[1, 10], [3, 12]], [[5, 6], [7, 8]], [[5, 6], [11, 12]]]
    in_colour_UCHW = images_UHW[:, None].expand(-1, 3, -1, -1)
    assert torch.equal(mix(in_colour_UCHW, inside_UHW), mix(images_UHW, inside_UHW)[:, None].expand(-1, 3, -1, -1))


def test_part_of_a_batch_with_its_previous_image_is_mixed_as_in_the_whole_batch() -> None:
    image_UCHW = torch.rand(5, 3, 16, 16, generator=generator())
    inside_UHW = inside_boxes(draw_boxes(5, (16, 16), 1.0, generator(1)), (16, 16))
    whole_UCHW = mix(image_UCHW, inside_UHW)
    for held in ([0, 1, 4], [2, 3, 1], [4, 3]):
        own = held[:-1]
        assert torch.equal(mix(image_UCHW[held], inside_UHW[own]), whole_UCHW[own])


# Channel dropout


def masks(
    kind: Kind, batch: int, channels: tuple[int, ...], *, probability: float = 0.5, undropped: float = 0.0
) -> tuple[list[Tensor], list[Tensor]]:
    return channel_masks(
        kind, batch, channels, probability=probability, undropped_fraction=undropped, generator=generator()
    )


def test_complementary_masks_are_the_papers() -> None:
    """At probability 0.5: 0 or 2 in the first view, 2 minus that in the second, 1 in both for undropped images."""
    first, second = masks("complementary", 6, (24, 24, 24, 24), undropped=0.5)
    assert all(mask is first[0] for mask in first), "a plain ViT's four maps share one mask"
    assert torch.equal(first[0] + second[0], torch.full((6, 24), 2.0))
    whole_B = (first[0] == 1).all(1)
    assert whole_B.sum() == 3
    assert set(first[0][~whole_B].flatten().tolist()) == {0.0, 2.0}


def test_maps_of_different_widths_have_their_own_masks() -> None:
    first, second = masks("complementary", 2, (8, 16, 32, 64))
    assert [mask.shape for mask in first] == [(2, 8), (2, 16), (2, 32), (2, 64)]
    assert all(torch.equal(a + b, torch.full_like(a, 2.0)) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("kind", ["complementary", "independent"])
def test_masks_keep_the_expectation(kind: Kind) -> None:
    first, second = masks(kind, 400, (64,), probability=0.25)
    assert first[0].mean().item() == pytest.approx(1, abs=0.02)
    assert second[0].mean().item() == pytest.approx(1, abs=0.05)


def test_independent_masks_agree_by_chance_and_skip_the_same_images() -> None:
    first, second = masks("independent", 400, (64,), undropped=0.5)
    whole_B = (first[0] == 1).all(1)
    assert whole_B.sum() == 200
    assert torch.equal(whole_B, (second[0] == 1).all(1))
    assert (first[0] == second[0])[~whole_B].float().mean().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("kind", "probability"), [("none", 0.5), ("complementary", 0.0), ("independent", 0.0)])
def test_masks_without_dropout_are_ones(kind: Kind, probability: float) -> None:
    first, second = masks(kind, 3, (8,), probability=probability)
    assert all(torch.equal(view[0], torch.ones(3, 8)) for view in (first, second))


def test_random_mask_drops_channels_with_its_probability() -> None:
    mask_BC = random_mask((100, 100), 0.25, generator())
    assert sorted(set(mask_BC.flatten().tolist())) == pytest.approx([0, 4 / 3])
    assert (mask_BC == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)


# Pseudo-labels


@pytest.mark.parametrize("model", [TINY_VIT, TINY_CONVNET], ids=["vit", "convnet"])
@pytest.mark.parametrize("max_elements", [1, 2 * 3 * 32 * 32, 2**26])
def test_pseudo_labels_equal_the_naive_reference(model: dict[str, object], max_elements: int) -> None:
    torch.manual_seed(0)
    teacher = build_segmenter(Model(**model), 3).eval()  # type: ignore[arg-type]
    weak_BCHW = torch.rand(3, 3, 32, 32, generator=generator())
    inside_BHW = torch.rand(3, 32, 32, generator=generator()) > 0.2
    pseudo, sum_BK = pseudo_labels(teacher, weak_BCHW, inside_BHW, max_elements=max_elements)
    with torch.no_grad():
        probability_BKHW = teacher(weak_BCHW).softmax(dim=1)
    assert torch.equal(pseudo.label_BHW, probability_BKHW.argmax(dim=1))
    torch.testing.assert_close(pseudo.confidence_BHW, probability_BKHW.amax(dim=1))
    torch.testing.assert_close(
        sum_BK,
        torch.stack([p_KHW[:, i_HW].sum(dim=1) for p_KHW, i_HW in zip(probability_BKHW, inside_BHW, strict=True)]),
    )


def test_pseudo_labels_are_fp32_under_autocast() -> None:
    """In bf16, confidences have a resolution of 0.004, so 0.95 and 0.953 would be equal."""
    torch.manual_seed(0)
    teacher = build_segmenter(Model(**TINY_VIT), 3).eval()  # type: ignore[arg-type]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pseudo, _ = pseudo_labels(teacher, torch.rand(1, 3, 32, 32), torch.ones(1, 32, 32, dtype=torch.bool))
    assert pseudo.confidence_BHW.dtype == torch.float32
    assert not torch.equal(pseudo.confidence_BHW, pseudo.confidence_BHW.bfloat16().float())


# Adaptive thresholds


def pseudo_labels_of(confidence: list[float], inside: list[bool]) -> PseudoLabels:
    count = len(inside)
    return PseudoLabels(
        torch.zeros(1, 1, count, dtype=torch.int64),
        torch.tensor(confidence).view(1, 1, count),
        torch.tensor(inside).view(1, 1, count),
    )


def test_thresholds_of_a_hand_worked_case() -> None:
    """Two classes, two pixels inside with probabilities (0.9, 0.1) and (0.6, 0.4), one outside."""
    thresholds = ClassThresholds(2)

    def update(confidences: list[float], class_sum_K: list[float], *, inside: list[bool]) -> None:
        thresholds.update(pseudo_labels_of(confidences, inside), torch.tensor([class_sum_K]), total=lambda sums: sums)

    update([0.9, 0.6, 1.0], [1.5, 0.5], inside=[True, True, False])
    of_each_K = thresholds(torch.tensor([0, 1]), 0.95)
    # From the first batch on, they are those of the teacher.
    assert of_each_K.tolist() == pytest.approx([0.75, 0.75 * 0.25 / 0.75])
    assert thresholds(torch.tensor([0, 1]), 0.4).tolist() == pytest.approx([0.4, 0.25])
    update([0.5, 0.5], [1.0, 1.0], inside=[True, True])
    first, second = DECAY * (1 - DECAY), 1 - DECAY
    confidence = (first * 0.75 + second * 0.5) / (first + second)
    likely, unlikely = first * 0.75 + second * 0.5, first * 0.25 + second * 0.5
    of_each_K = thresholds(torch.tensor([0, 1]), 0.95)
    assert of_each_K.tolist() == pytest.approx([confidence, confidence * unlikely / likely])


def test_thresholds_do_not_depend_on_the_number_of_processes() -> None:
    whole, part = ClassThresholds(2), ClassThresholds(2)
    whole.update(pseudo_labels_of([0.9, 0.6], [True, True]), torch.tensor([[1.5, 0.5]]), total=lambda sums: sums)
    other = torch.tensor([0.6, 1.0, 0.6, 0.4])  # confidence, count, and the classes' sums of the second pixel
    part.update(pseudo_labels_of([0.9], [True]), torch.tensor([[0.9, 0.1]]), total=lambda sums: sums + other)
    torch.testing.assert_close(part.state_dict(), whole.state_dict())


def test_thresholds_have_a_limit_and_ignore_padding() -> None:
    thresholds = ClassThresholds(2)
    before = {name: tensor.clone() for name, tensor in thresholds.state_dict().items()}
    thresholds.update(pseudo_labels_of([1.0], [False]), torch.zeros(1, 2), total=lambda sums: sums)
    torch.testing.assert_close(thresholds.state_dict(), before, rtol=0, atol=0)
    thresholds.update(pseudo_labels_of([1.0, 1.0], [True, True]), torch.tensor([[1.0, 1.0]]), total=lambda sums: sums)
    assert thresholds(torch.tensor([0, 1]), 0.95).tolist() == pytest.approx([0.95, 0.95])


def test_thresholds_are_saved_and_loaded() -> None:
    thresholds, again = ClassThresholds(3), ClassThresholds(3)
    thresholds.update(pseudo_labels_of([0.9], [True]), torch.tensor([[0.9, 0.1, 0.0]]), total=lambda sums: sums)
    again.load_state_dict(thresholds.state_dict())
    assert torch.equal(again(torch.arange(3), 1.0), thresholds(torch.arange(3), 1.0))
    assert isinstance(thresholds, nn.Module)
