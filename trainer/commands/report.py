"""`report RUN_DIR`: write a run's report.html anew."""

import argparse
import dataclasses
import json
from pathlib import Path

from trainer.batches import RunData
from trainer.checkpoint import Checkpoint, load
from trainer.config import Recipe
from trainer.devices import pick_device
from trainer.evaluation.audit import audit_pseudo_labels
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.metrics import Scores
from trainer.open_data import open_data
from trainer.recipe_file import load_recipe
from trainer.report.history import read_events
from trainer.report.write import REPORT, write_report


def add(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.description = (
        "Write report.html, one page that needs no network: curves, classes, confusions, calibration, validation "
        "images and what the unlabelled images taught. A run writes it at its end; this writes it anew."
    )
    command.add_argument("run", type=Path, metavar="RUN_DIR", help="a finished run's folder")
    command.add_argument("--data", metavar="DATASET", help="where the data set lies now (default: the recipe's)")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    command.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Write the report and print where it is."""
    recipe = load_recipe(options.run / "recipe.toml")
    if options.data:
        recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, root=options.data))
    checkpoint = load(options.run / "model.safetensors")
    checkpoint.model.to(pick_device(options.device))
    data = open_data(recipe)
    path = write_report(
        options.run / REPORT,
        recipe=recipe,
        data=data,
        model=checkpoint.model,
        scores=_scores(options.run, recipe, data, checkpoint),
        events=read_events(options.run / "events.jsonl"),
        audit=audit_pseudo_labels(checkpoint.model, recipe, data) if data.unlabelled else None,
    )
    print(path)
    return 0


def _scores(run_folder: Path, recipe: Recipe, data: RunData, checkpoint: Checkpoint) -> Scores | None:
    """What the run found, or finds now if it left nothing."""
    if not data.val:
        return None
    try:
        return Scores.from_full_dict(json.loads((run_folder / "evaluation.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return evaluate(checkpoint.model, data.dataset, data.val, inference=recipe.inference)
