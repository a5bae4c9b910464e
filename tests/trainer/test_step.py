"""A step computed in micro-batches is the step of the whole batch."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainer.conftest import TINY_CONVNET, TINY_VIT, make_recipe, write_dataset
from trainer.batches import batches
from trainer.config import Loss, Recipe, UniMatch
from trainer.methods.registry import METHODS
from trainer.open_data import open_data
from trainer.processes import Processes
from trainer.run import Run, build
from trainer.step import judged_together, micro_batches, step, student_batch

# R rows, B labelled images, H W pixels

BATCH, STEPS = 3, 2
ONE = Processes(torch.device("cpu"))
OHEM = Loss(kind="ohem", ohem_threshold=0.4, ohem_min_kept=700)
EVERYTHING = UniMatch(confidence_threshold=0.0)  # so that a change of any part of the method shows
CASES: list[tuple[str, dict[str, Any]]] = [
    *((method, {"unimatch": EVERYTHING}) for method in METHODS),
    ("unimatch_v2", {"unimatch": replace(EVERYTHING, dropout_place="head")}),
    ("unimatch_v2", {"unimatch": EVERYTHING, "loss": OHEM}),
    ("supervised", {"loss": OHEM}),
]
IDS = [*METHODS, "unimatch_v2-head", "unimatch_v2-ohem", "supervised-ohem"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("step") / "dataset")


def a_recipe(root: Path, method: str, accumulate: int, model: dict[str, Any] = TINY_VIT, **parts: Any) -> Recipe:
    sizes = {"steps": STEPS, "batch_labelled": BATCH, "batch_unlabelled": BATCH}
    return replace(make_recipe(root, method, model, accumulate=accumulate, **sizes), **parts)


def two_steps(recipe: Recipe) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """The losses of each step, and the student's weights after the last."""
    data = open_data(recipe)
    run, losses = build(recipe, data.dataset.taxonomy, ONE), []
    for labelled, unlabelled in batches(recipe, data, ONE, start=0):
        values = step(run, recipe, labelled, unlabelled, ONE)
        losses.append({name: value.item() for name, value in values.items()})
    return losses, run.student.state_dict()


@cache
def whole(root: Path, case: int) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    method, parts = CASES[case]
    return two_steps(a_recipe(root, method, 1, **parts))


def first_step(recipe: Recipe) -> tuple[Run, Any]:
    """A run before its first step, and that step's student batch."""
    data = open_data(recipe)
    run = build(recipe, data.dataset.taxonomy, ONE)
    return run, student_batch(run, recipe, *next(iter(batches(recipe, data, ONE, start=0))), ONE)


@pytest.mark.parametrize("accumulate", [2, 3, 20], ids=["2", "3", "more-than-rows"])
@pytest.mark.parametrize("case", range(len(CASES)), ids=IDS)
def test_steps_in_parts_are_the_whole_steps(case: int, accumulate: int, root: Path) -> None:
    method, parts = CASES[case]
    expected_losses, expected = whole(root, case)
    losses, weights = two_steps(a_recipe(root, method, accumulate, **parts))
    assert len(losses) == STEPS
    for ours, theirs in zip(losses, expected_losses, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    # AdamW makes a whole step of any gradient: where it is rounding alone, so is the step's direction.
    moved = 1e-3 * STEPS
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=moved / 20, msg=name)


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_parts_hold_every_row_once_and_the_labelled_ones_first(count: int, root: Path) -> None:
    _, batch = first_step(a_recipe(root, "unimatch_v2", count))
    parts = micro_batches(batch, count)
    assert len(parts) == min(count, 2 * BATCH)  # the two views of three images, of which each part has one at most
    assert sum(part.labelled for part in parts) == BATCH
    for name in ("image_RCHW", "label_RHW", "weight_RHW"):
        ours = [row for part in parts for row in getattr(part, name)]
        assert {row.numpy().tobytes() for row in ours} == {row.numpy().tobytes() for row in getattr(batch, name)}
        assert len(ours) == len(batch.image_RCHW)
    for part in parts:
        for row in part.image_RCHW[: part.labelled]:
            assert any(torch.equal(row, other) for other in batch.image_RCHW[:BATCH])


@pytest.mark.parametrize("model", [TINY_VIT, TINY_CONVNET], ids=["vit", "convnet"])
def test_ohem_judges_all_parts_together_and_leaves_the_network_as_it_was(model: dict[str, Any], root: Path) -> None:
    """So many pixels are kept as one bound for all of them says, whichever part they lie in; the sum stays 1."""
    bound = Loss(kind="ohem", ohem_threshold=0.0, ohem_min_kept=700)
    recipe = a_recipe(root, "unimatch_v2", 2, model, loss=bound)
    run, batch = first_step(recipe)
    before = {name: tensor.clone() for name, tensor in run.student.state_dict().items()}
    parts = judged_together(run, micro_batches(batch, 2), recipe)
    hard_BHW = torch.cat([part.weight_RHW[: part.labelled] for part in parts])
    assert (hard_BHW > 0).sum().item() == pytest.approx(700, abs=10)  # pixels that tie with the last are kept, too
    assert hard_BHW.sum().item() == pytest.approx(1)
    torch.testing.assert_close(run.student.state_dict(), before, rtol=0, atol=0)
    assert run.student.training
