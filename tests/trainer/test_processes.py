"""Data-parallel training: real processes, started by torchrun, compared with one process."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch

from tests.trainer.conftest import make_recipe, write_dataset
from tests.trainer.test_train import run
from trainer import checkpoint
from trainer.config import UniMatch
from trainer.data.batches.loaders import rows_with_partner, shuffled
from trainer.processes import Processes

TORCHRUN = ["torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "trainer"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["unimatch_v2", "unimatch_v1"])
def test_two_processes_equal_one(tmp_path: Path, method: str) -> None:
    """Odd numbers of images, CutMix partners in the other process's share, and a threshold of 0."""
    dataset = write_dataset(tmp_path / "dataset", labelled=5, unlabelled=7, val=3)
    recipe = make_recipe(dataset, method, steps=4, batch_labelled=4, batch_unlabelled=4)
    recipe = dataclasses.replace(recipe, unimatch=UniMatch(confidence_threshold=0.0, cutmix_probability=1.0))
    one = run(recipe, tmp_path / "one")

    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(recipe.as_dict()))
    out = tmp_path / "two"
    command = [*TORCHRUN, "train", str(tmp_path / "recipe.toml"), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    two = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]

    assert [event["event"] for event in two] == [event["event"] for event in one], "only the main process emits events"
    assert two[0]["processes"] == 2
    for actual, reference in zip(steps(two), steps(one), strict=True):
        assert reference["confident"] == pytest.approx(1)
        assert actual == pytest.approx(reference, rel=1e-4)
    assert [event["images"] for event in two if event["event"] == "evaluation"] == [3], "each image is evaluated once"
    models = [checkpoint.load(tmp_path / name / "model.safetensors").model.state_dict() for name in ("one", "two")]
    for name, tensor in models[0].items():
        torch.testing.assert_close(models[1][name], tensor, rtol=1e-4, atol=1e-6)


def steps(events: list[dict[str, Any]]) -> list[dict[str, float]]:
    """The figures of the progress events."""
    return [
        {name: value for name, value in event.items() if name != "event"}
        for event in events
        if event["event"] == "progress"
    ]


def test_shares_cover_a_batch_once_and_rows_include_the_cutmix_partner() -> None:
    cpu = torch.device("cpu")
    shares = [Processes(cpu, rank, 3).share(8) for rank in range(3)]
    assert [row for share in shares for row in share] == list(range(8))
    assert rows_with_partner(shares[0], 8) == [0, 1, 7]
    assert rows_with_partner(shares[1], 8) == [2, 3, 4, 1]
    assert rows_with_partner(range(8), 8) == list(range(8))


def test_random_draws_do_not_depend_on_the_number_of_processes() -> None:
    def draws(rows: range) -> list[list[tuple[int, int]]]:
        return list(shuffled(5, 4, rows, start=1, steps=4, seed=3, stream=1))

    halves = zip(draws(range(2)), draws(range(2, 4)), strict=True)
    assert [[*first, *second] for first, second in halves] == draws(range(4))
