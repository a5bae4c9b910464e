"""`report RUN_DIR`: write a run's report.html again."""

import argparse
import dataclasses
import json
from pathlib import Path

from trainer.checkpoint import Checkpoint, load
from trainer.config import Recipe
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.metrics import Scores
from trainer.processes import pick_device
from trainer.recipe_file import load_recipe
from trainer.report.write import write_report
from trainer.run_data import RunData, open_run_data


def add(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.description = (
        "Write report.html, a self-contained page with curves, scores by class, confusions, calibration, validation "
        "images and an audit of the pseudo-labels. A run writes it when it ends; this command writes it again."
    )
    command.add_argument("run", type=Path, metavar="RUN_DIR", help="folder of a finished run")
    command.add_argument("--data", metavar="DATASET", help="folder of the data set (default: the recipe's data.root)")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")


def run(options: argparse.Namespace) -> int:
    """Write the report and print its path."""
    recipe = load_recipe(options.run / "recipe.toml")
    if options.data:
        recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, root=options.data))
    checkpoint = load(options.run / "model.safetensors")
    checkpoint.model.to(pick_device(options.device))
    data = open_run_data(recipe)
    scores = _scores(options.run, recipe, data, checkpoint)
    print(write_report(options.run, recipe=recipe, data=data, model=checkpoint.model, scores=scores))
    return 0


def _scores(run_folder: Path, recipe: Recipe, data: RunData, checkpoint: Checkpoint) -> Scores | None:
    if not data.val:
        return None
    try:
        return Scores.from_full_dict(json.loads((run_folder / "evaluation.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return evaluate(checkpoint.model, data.dataset, data.val, inference=recipe.inference)
