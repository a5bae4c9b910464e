"""A training step in micro-batches equals the step of the whole batch."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainer.conftest import TINY_CONVNET, TINY_VIT, make_recipe, write_dataset
from trainer.config import Loss, Recipe, UniMatch
from trainer.processes import Processes
from trainer.run_data import open_run_data, training_batches
from trainer.step import METHODS, build_student_batch, micro_batches, training_step, with_joint_ohem_weights
from trainer.training_state import TrainingState, build_state

# R rows, B labelled images, H W pixels

BATCH, STEPS = 3, 2
ONE = Processes(torch.device("cpu"))
OHEM = Loss(kind="ohem", ohem_threshold=0.4, ohem_min_kept_share=0.25)
ALL_PIXELS = UniMatch(confidence_threshold=0.0)
CASES: list[tuple[str, dict[str, Any]]] = [
    *((method, {"unimatch": ALL_PIXELS}) for method in METHODS),
    ("unimatch_v2", {"unimatch": replace(ALL_PIXELS, dropout_place="head")}),
    ("unimatch_v2", {"unimatch": ALL_PIXELS, "loss": OHEM}),
    ("supervised", {"loss": OHEM}),
]
IDS = [*METHODS, "unimatch_v2-head", "unimatch_v2-ohem", "supervised-ohem"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("step") / "dataset")


def step_recipe(root: Path, method: str, accumulate: int, model: dict[str, Any] = TINY_VIT, **parts: Any) -> Recipe:
    sizes = {"steps": STEPS, "batch_labelled": BATCH, "batch_unlabelled": BATCH}
    return replace(make_recipe(root, method, model, accumulate=accumulate, **sizes), **parts)


def two_steps(recipe: Recipe) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """The losses of each step, and the student's weights after the last."""
    data = open_run_data(recipe)
    state, losses = build_state(recipe, data.dataset.taxonomy, ONE), []
    for batches in training_batches(recipe, data, ONE, start=0):
        values = training_step(state, recipe, batches, ONE)
        losses.append({name: value.item() for name, value in values.items()})
    return losses, state.student.state_dict()


@cache
def whole(root: Path, case: int) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    method, parts = CASES[case]
    return two_steps(step_recipe(root, method, 1, **parts))


def first_step(recipe: Recipe) -> tuple[TrainingState, Any]:
    """A state before its first step, and the student batch of that step."""
    data = open_run_data(recipe)
    state = build_state(recipe, data.dataset.taxonomy, ONE)
    return state, build_student_batch(state, recipe, next(iter(training_batches(recipe, data, ONE, start=0))), ONE)


@pytest.mark.parametrize("accumulate", [2, 3, 20], ids=["2", "3", "more-than-rows"])
@pytest.mark.parametrize("case", range(len(CASES)), ids=IDS)
def test_micro_batches_give_the_losses_and_weights_of_the_whole_batch(case: int, accumulate: int, root: Path) -> None:
    method, parts = CASES[case]
    expected_losses, expected = whole(root, case)
    losses, weights = two_steps(step_recipe(root, method, accumulate, **parts))
    assert len(losses) == STEPS
    for actual, reference in zip(losses, expected_losses, strict=True):
        assert actual == pytest.approx(reference, rel=1e-4)
    # AdamW normalises the gradient, so a weight whose gradient is only rounding error moves in a random direction.
    moved = 1e-3 * STEPS
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=moved / 20, msg=name)


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_micro_batches_contain_every_row_once_labelled_rows_first(count: int, root: Path) -> None:
    _, batch = first_step(step_recipe(root, "unimatch_v2", count))
    parts = micro_batches(batch, count)
    assert len(parts) == min(count, 2 * BATCH)  # six views of three images, at most one in each part
    assert sum(part.labelled for part in parts) == BATCH
    for name in ("image_RCHW", "label_RHW", "weight_RHW"):
        actual = [row for part in parts for row in getattr(part, name)]
        assert {row.numpy().tobytes() for row in actual} == {row.numpy().tobytes() for row in getattr(batch, name)}
        assert len(actual) == len(batch.image_RCHW)
    for part in parts:
        for row in part.image_RCHW[: part.labelled]:
            assert any(torch.equal(row, other) for other in batch.image_RCHW[:BATCH])


@pytest.mark.parametrize("model", [TINY_VIT, TINY_CONVNET], ids=["vit", "convnet"])
def test_ohem_ranks_all_micro_batches_together_and_restores_the_network(model: dict[str, Any], root: Path) -> None:
    """The share applies to the 3 * 32 * 32 pixels of all parts together, and the weights still sum to 1."""
    bound = Loss(kind="ohem", ohem_threshold=0.0, ohem_min_kept_share=0.25)
    recipe = step_recipe(root, "unimatch_v2", 2, model, loss=bound)
    state, batch = first_step(recipe)
    before = {name: tensor.clone() for name, tensor in state.student.state_dict().items()}
    parts = with_joint_ohem_weights(state, micro_batches(batch, 2), recipe)
    hard_BHW = torch.cat([part.weight_RHW[: part.labelled] for part in parts])
    assert (hard_BHW > 0).sum().item() == pytest.approx(768, abs=10)  # ties with the last pixel are kept too
    assert hard_BHW.sum().item() == pytest.approx(1)
    torch.testing.assert_close(state.student.state_dict(), before, rtol=0, atol=0)
    assert state.student.training
