"""Every method equals the published step, also when split over processes and micro-batches."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainer.conftest import TINY_CONVNET, TINY_VIT, make_recipe
from tests.trainer.published_steps import IGNORE, published_loss
from trainer.config import Model, Recipe
from trainer.data.batches.loaders import LabelledBatch, UnlabelledBatch
from trainer.losses import chunked_cross_entropy
from trainer.methods.class_thresholds import ClassThresholds
from trainer.methods.interface import StepContext, StudentBatch
from trainer.methods.pseudo_labels import pseudo_labels
from trainer.models.segmenter import Segmenter, build_segmenter, to_float
from trainer.step import METHODS, rows_of
from trainer.teacher import make_teacher

# B labelled images, U unlabelled images, R rows, K classes, H W pixels

CLASSES, SIDE, IMAGES, SHARP = 3, 32, 4, 30
CASES: list[tuple[str, dict[str, Any]]] = [
    ("supervised", {}),
    ("fixmatch", {}),
    ("fixmatch", {"unlabelled_weight": 0.5}),
    ("unimatch_v1", {}),
    ("unimatch_v2", {}),
    ("unimatch_v2", {"streams": 1}),
    ("unimatch_v2", {"dropout": "independent", "undropped_fraction": 0.0}),
    ("unimatch_v2", {"dropout": "none"}),
    ("unimatch_v2", {"dropout_place": "head", "dropout_probability": 0.25}),
]
IDS = ["-".join([method, *map(str, settings.values())]) for method, settings in CASES]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def a_recipe(method: str, **settings: Any) -> Recipe:
    recipe = make_recipe(Path("nowhere"), method, batch_labelled=IMAGES, batch_unlabelled=IMAGES)
    return replace(recipe, unimatch=replace(recipe.unimatch, confidence_threshold=0.85, **settings))


def networks(model: dict[str, Any] = TINY_VIT) -> tuple[Segmenter, Segmenter]:
    """A student, and a different teacher that is confident about some pixels."""
    torch.manual_seed(0)
    student = build_segmenter(Model(**model), CLASSES).eval()  # batch statistics differ, see V2
    teacher = make_teacher(student)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator(9)) * 0.05)
        # An untrained network predicts nearly the same for all pixels.
        dict(teacher.named_parameters())["head.classify.2.weight"].mul_(SHARP)
    return student, teacher


def batches() -> tuple[LabelledBatch, UnlabelledBatch]:
    """Random images; some pixels have no label, and one image has padding at the bottom."""
    draws = generator(3)
    images = torch.randint(0, 256, (2, IMAGES, SIDE, SIDE, 3), dtype=torch.uint8, generator=draws)
    mask_BHW = torch.randint(0, CLASSES, (IMAGES, SIDE, SIDE), generator=draws)
    mask_BHW[:, :5], mask_BHW[1, :, 8:] = IGNORE, IGNORE
    inside_UHW = torch.ones(IMAGES, SIDE, SIDE, dtype=torch.bool)
    inside_UHW[1, 20:] = False
    return LabelledBatch(images[0], mask_BHW), UnlabelledBatch(images[1], inside_UHW)


def step_context(recipe: Recipe, teacher: Segmenter, **options: Any) -> StepContext:
    fields: dict[str, Any] = {
        "teacher": teacher,
        "channels": teacher.encoder.channels,
        "head_width": teacher.head.features,
        "recipe": recipe,
        "ignore_index": IGNORE,
        "class_weights_K": None,
        "generator": generator(4),
        "local_rows": range(IMAGES),
        "total": lambda tensor: tensor,
    }
    return StepContext(**fields | options)


def forward_backward(student: Segmenter, batch: StudentBatch) -> Tensor:
    """Forward and backward pass as in the training step; returns the total loss."""
    logits_RKhw = student(batch.image_RCHW, batch.dropout, batch.head_dropout, upsample=False)
    factor_R = torch.full((len(logits_RKhw),), batch.scale[1])
    factor_R[: batch.labelled] = batch.scale[0]
    loss_R, gradient_RKhw = chunked_cross_entropy(
        logits_RKhw, batch.label_RHW, batch.weight_RHW, factor_R, align_corners=student.head.align_corners
    )
    logits_RKhw.backward(gradient_RKhw)
    return (loss_R * factor_R).sum()


def gradients(student: Segmenter) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in student.named_parameters() if parameter.grad is not None}


def assert_same_gradients(student: Segmenter, reference: Segmenter) -> None:
    actual, expected = gradients(student), gradients(reference)
    assert actual.keys() == expected.keys()
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    for name, gradient in actual.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5 * largest, msg=name)


@pytest.mark.parametrize(("method", "settings"), CASES, ids=IDS)
def test_step_equals_the_published_step(method: str, settings: dict[str, Any]) -> None:
    recipe, (student, teacher), (labelled, unlabelled) = a_recipe(method, **settings), networks(), batches()
    reference = copy.deepcopy(student)
    batch = METHODS[recipe.method](labelled, unlabelled, step_context(recipe, teacher))
    loss = forward_backward(student, batch)
    expected = published_loss(reference, teacher, labelled, unlabelled, recipe=recipe, generator=generator(4))
    expected.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=0)
    assert_same_gradients(student, reference)
    views = batch.weight_RHW[batch.labelled :]
    assert method == "supervised" or 0.2 < views.sum() < 0.8, "the case has confident and other pixels"


@pytest.mark.parametrize("method", ["supervised", "unimatch_v2"])
def test_class_weights_give_a_weighted_mean(method: str) -> None:
    recipe, (student, teacher), (labelled, unlabelled) = a_recipe(method), networks(), batches()
    class_weights_K = torch.tensor([0.5, 2.0, 0.7])
    batch = METHODS[recipe.method](labelled, unlabelled, step_context(recipe, teacher, class_weights_K=class_weights_K))
    expected = published_loss(
        student, teacher, labelled, unlabelled, recipe=recipe, generator=generator(4), class_weights_K=class_weights_K
    )
    torch.testing.assert_close(forward_backward(student, batch), expected.detach(), rtol=1e-5, atol=0)


def test_step_of_a_convnet_equals_the_published_step() -> None:
    recipe, (student, teacher), (labelled, unlabelled) = a_recipe("unimatch_v2"), networks(TINY_CONVNET), batches()
    batch = METHODS[recipe.method](labelled, unlabelled, step_context(recipe, teacher))
    expected = published_loss(student, teacher, labelled, unlabelled, recipe=recipe, generator=generator(4))
    torch.testing.assert_close(forward_backward(student, batch), expected.detach(), rtol=1e-5, atol=0)


def partial_thresholds() -> ClassThresholds:
    """Adaptive thresholds that accept some of the pixels."""
    thresholds = ClassThresholds(CLASSES)
    thresholds.weight.fill_(1.0)
    thresholds.confidence.fill_(0.8)
    thresholds.probability_K.copy_(torch.tensor([0.5, 0.48, 0.4]))
    return thresholds


def test_adaptive_threshold_depends_on_the_class_of_the_label() -> None:
    recipe, (_, teacher), (labelled, unlabelled) = a_recipe("unimatch_v1"), networks(), batches()
    thresholds = partial_thresholds()
    batch = METHODS[recipe.method](labelled, unlabelled, step_context(recipe, teacher, thresholds=thresholds))
    weak = batch.weight_RHW[-IMAGES:]  # V1's last stream is the weak view
    pseudo, _ = pseudo_labels(teacher, to_float(unlabelled.image_BHWC), unlabelled.inside_BHW)
    threshold_K = thresholds(torch.arange(CLASSES), 0.85)
    for label in range(CLASSES):
        of_class = (pseudo.label_BHW == label) & pseudo.inside_BHW
        assert torch.equal(weak[of_class] > 0, pseudo.confidence_BHW[of_class] >= threshold_K[label])
    assert len(set(threshold_K.tolist())) == CLASSES
    assert 0 < (weak > 0).sum() < pseudo.inside_BHW.sum()


class SequentialSum:
    """Sums over processes that run one after the other: the first pass records the terms, the second returns sums."""

    def __init__(self, processes: int) -> None:
        self.terms: list[list[Tensor]] = [[] for _ in range(processes)]
        self.called = [0] * processes

    def of(self, process: int, *, recording: bool) -> Callable[[Tensor], Tensor]:
        def total(tensor: Tensor) -> Tensor:
            if recording:
                self.terms[process].append(tensor)
                return tensor
            self.called[process] += 1
            return torch.stack([terms[self.called[process] - 1] for terms in self.terms]).sum(dim=0)

        return total


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize(("method", "settings"), CASES, ids=IDS)
def test_two_processes_have_the_rows_of_a_single_process(method: str, settings: dict[str, Any], adaptive: bool) -> None:
    recipe, (_, teacher), (labelled, unlabelled) = a_recipe(method, **settings), networks(), batches()
    shares = [range(1), range(1, IMAGES)]

    def part(process: int, total: Callable[[Tensor], Tensor], thresholds: ClassThresholds | None) -> StudentBatch:
        own = list(shares[process])
        held = [*own, own[0] - 1]
        context = step_context(recipe, teacher, local_rows=shares[process], total=total, thresholds=thresholds)
        return METHODS[recipe.method](
            LabelledBatch(*(tensor[own] for tensor in labelled)),
            UnlabelledBatch(*(tensor[held] for tensor in unlabelled)),
            context,
        )

    of_whole = partial_thresholds() if adaptive else None
    whole = METHODS[recipe.method](labelled, unlabelled, step_context(recipe, teacher, thresholds=of_whole))
    sums = SequentialSum(len(shares))
    for process in range(len(shares)):
        part(process, sums.of(process, recording=True), partial_thresholds() if adaptive else None)
    for process, share in enumerate(shares):
        of_part = partial_thresholds() if adaptive else None
        actual = part(process, sums.of(process, recording=False), of_part)
        assert sums.called[process] == len(sums.terms[process])
        streams = len(whole.image_RCHW) // IMAGES
        rows = (IMAGES * torch.arange(streams)[:, None] + torch.tensor(share)).flatten()
        expected = rows_of(whole, rows)
        assert (actual.labelled, actual.scale) == (len(share), whole.scale)
        torch.testing.assert_close(actual.image_RCHW, expected.image_RCHW, rtol=0, atol=1e-6)
        torch.testing.assert_close(actual.weight_RHW, expected.weight_RHW)
        assert torch.equal(actual.label_RHW, expected.label_RHW)
        torch.testing.assert_close(actual.dropout, expected.dropout)
        torch.testing.assert_close(actual.head_dropout, expected.head_dropout)
        if of_whole and of_part:
            torch.testing.assert_close(of_part.state_dict(), of_whole.state_dict(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("method", ["unimatch_v1", "unimatch_v2"])
def test_losses_and_gradients_of_micro_batches_add_up(method: str) -> None:
    recipe, (student, teacher), (labelled, unlabelled) = a_recipe(method), networks(), batches()
    reference = copy.deepcopy(student)
    batch = METHODS[recipe.method](labelled, unlabelled, step_context(recipe, teacher))
    parts = [torch.arange(start, len(batch.image_RCHW), 3) for start in range(3)]
    loss = torch.stack([forward_backward(student, rows_of(batch, rows)) for rows in parts]).sum()
    torch.testing.assert_close(loss, forward_backward(reference, batch))
    assert_same_gradients(student, reference)


def test_teacher_gets_no_gradient_and_does_not_change() -> None:
    recipe, (student, teacher), (labelled, unlabelled) = a_recipe("unimatch_v2"), networks(), batches()
    before = copy.deepcopy(teacher.state_dict())
    batch = METHODS[recipe.method](labelled, unlabelled, step_context(recipe, teacher))
    forward_backward(student, batch)
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    assert gradients(student)


@pytest.mark.parametrize("method", METHODS)
def test_batch_without_valid_pixels_has_zero_loss(method: str) -> None:
    recipe, (student, teacher), (labelled, unlabelled) = a_recipe(method), networks(), batches()
    batch = METHODS[recipe.method](
        labelled._replace(mask_BHW=torch.full_like(labelled.mask_BHW, IGNORE)),
        unlabelled._replace(inside_BHW=torch.zeros_like(unlabelled.inside_BHW)),
        step_context(recipe, teacher, thresholds=ClassThresholds(CLASSES)),
    )
    assert forward_backward(student, batch) == 0
    assert not any(gradient.any() for gradient in gradients(student).values())


@pytest.mark.parametrize("method", ["fixmatch", "unimatch_v1", "unimatch_v2"])
def test_missing_unlabelled_images_raise_value_error(method: str) -> None:
    recipe, (_, teacher), (labelled, _) = a_recipe(method), networks(), batches()
    with pytest.raises(ValueError, match=f"{method} learns from unlabelled images"):
        METHODS[recipe.method](labelled, None, step_context(recipe, teacher))


@pytest.mark.parametrize(("method", "settings"), CASES, ids=IDS)
def test_methods_do_not_synchronize_with_the_device(
    method: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the meta device, every operation that needs a value on the host raises."""
    monkeypatch.setattr(torch, "autocast", lambda *_args, **_options: nullcontext())
    recipe, (_, teacher), (labelled, unlabelled) = a_recipe(method, **settings), networks(), batches()
    context = step_context(
        recipe,
        teacher.to("meta"),
        class_weights_K=torch.ones(CLASSES, device="meta"),
        thresholds=ClassThresholds(CLASSES).to("meta"),
    )
    batch = METHODS[recipe.method](
        LabelledBatch(*(tensor.to("meta") for tensor in labelled)),
        UnlabelledBatch(*(tensor.to("meta") for tensor in unlabelled)),
        context,
    )
    assert batch.weight_RHW.is_meta
