"""Compare four training methods on few labels: mIoU of each, mean and standard deviation over seeds.

python -m tests.benchmarks.methods --data DATASET --out FOLDER      (make camvid DATA=DATASET)

Every run is one `python -m trainer train` of the same recipe and schedule. Only method, split and seed differ, and
`supervised` has twice the labelled batch, as in the paper. With `--thresholds 0.95 auto`, each method is trained with
each confidence threshold. Runs that are finished in FOLDER are not repeated; interrupted ones are resumed. Writes
results.json and table.md to FOLDER.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.benchmarks.methods_table import Result, table
from trainer.config import Recipe, RecipeError
from trainer.recipe_file import load_recipe, recipe_from_dict

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "trainer" / "recipes" / "benchmarks" / "camvid_methods.toml"
SECONDS = "seconds.txt"
"""File with the wall-clock seconds of each attempt at a run."""
METHODS = ("supervised", "fixmatch", "unimatch_v1", "unimatch_v2")


class RunSpec(NamedTuple):
    """One run and its differences from the recipe."""

    split: str
    method: str
    seed: int
    overrides: tuple[str, ...]
    threshold: str = ""

    @property
    def variant(self) -> str:
        """Return the method, with its threshold if thresholds are compared."""
        return f"{self.method}, threshold {self.threshold}" if self.threshold else self.method

    def folder(self, out: Path) -> Path:
        """Return the folder of the run."""
        name = f"{self.method}-{self.threshold}" if self.threshold else self.method
        return out / self.split / name / f"seed{self.seed}"


def main() -> int:
    options = arguments()
    out: Path = options.out
    specs = run_specs(options)
    out.mkdir(parents=True, exist_ok=True)
    results = train_all(specs, options.recipe, out)
    text = table(results)
    (out / "results.json").write_text(json.dumps(report(results, options), indent=1), encoding="utf-8")
    (out / "table.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data set's folder, with SPLIT/labelled lists")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs and the table")
    parser.add_argument("--splits", nargs="+", default=["1_16", "1_8"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    thresholds = "also compare these values of unimatch.confidence_threshold, such as 0.95 auto"
    parser.add_argument("--thresholds", nargs="+", default=[""], metavar="T", help=thresholds)
    parser.add_argument("--steps", type=int, help="training steps per run (default: the recipe's)")
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=VALUE")
    return parser.parse_args(given)


def run_specs(options: argparse.Namespace) -> list[RunSpec]:
    """Return all runs, seed by seed, so that partial results are comparable between methods."""
    shared = [*options.overrides, f"data.root='{options.data.resolve().as_posix()}'"]
    shared += [f"train.steps={options.steps}"] if options.steps else []
    batch = 2 * load_recipe(options.recipe, shared).train.batch_labelled
    doubled = {"supervised": [f"train.batch_labelled={batch}"]}
    return [
        RunSpec(split, method, seed, (*shared, *own, *doubled.get(method, []), *_threshold(value)), value)
        for seed in options.seeds
        for split in options.splits
        for method in options.methods
        for value in (options.thresholds if method != "supervised" else [""])
        if (own := [f"method={method}", f"seed={seed}", *(f"data.{x}={split}/{x}" for x in ("labelled", "unlabelled"))])
    ]


def _threshold(value: str) -> list[str]:
    return [f"unimatch.confidence_threshold={value}"] if value else []


def train_all(specs: list[RunSpec], recipe: Path, out: Path) -> list[Result]:
    """Train the unfinished runs, with a progress bar over all steps of all runs."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        recipes = [load_recipe(recipe, list(spec.overrides)) for spec in specs]
        task = bar.add_task("", total=sum(spec_recipe.train.steps for spec_recipe in recipes))
        results, done = [], 0
        for number, (spec, spec_recipe) in enumerate(zip(specs, recipes, strict=True), start=1):
            name = f"{number}/{len(specs)}  {spec.split} {spec.variant} seed {spec.seed}"
            bar.update(task, description=name, completed=done)
            if not is_finished(spec.folder(out), spec_recipe):
                train_one(spec, recipe, out, partial(show_progress, bar, task, done))
            results.append(read_result(spec, spec.folder(out)))
            done += spec_recipe.train.steps
        bar.update(task, completed=done)
    return results


def show_progress(bar: Progress, task: TaskID, before: int, step: int) -> None:
    """Move the progress bar to `step` of the current run, which follows `before` steps of earlier runs."""
    bar.update(task, completed=before + step)


def is_finished(folder: Path, recipe: Recipe) -> bool:
    """Whether this run is finished. Raises RecipeError if the folder has a run of another recipe."""
    written = folder / "recipe.toml"
    if not written.exists():
        return False
    found = recipe_from_dict(tomllib.loads(written.read_text(encoding="utf-8")), str(written))
    if found != recipe:
        raise RecipeError(f"{folder} has a run of another recipe; give another --out, or remove the folder")
    return (folder / "model.safetensors").exists()


def train_one(spec: RunSpec, recipe: Path, out: Path, on_step: Callable[[int], None]) -> None:
    """Run the trainer in a new process; resume an interrupted run."""
    folder = spec.folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "trainer", "train", str(recipe.resolve()), "--out", str(folder.resolve())]
    command += [word for override in spec.overrides for word in ("--set", override)]
    if (folder / "resume.pt").exists():
        command.append("--resume")
    else:
        for name in ("events.jsonl", SECONDS):
            (folder / name).unlink(missing_ok=True)
    start = time.monotonic()
    with (
        (folder / "stderr.txt").open("w", encoding="utf-8") as stderr,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                event = json.loads(line) if line.startswith("{") else {}
                if event.get("event") == "progress":
                    on_step(event["step"])
        finally:
            # Ctrl-C also reaches the trainer, which saves its state before it exits.
            status = process.wait()
            with (folder / SECONDS).open("a", encoding="utf-8") as file:
                file.write(f"{time.monotonic() - start:.1f}\n")
    if status:
        text = (folder / "stderr.txt").read_text(encoding="utf-8")[-2000:]
        raise SystemExit(f"{' '.join(command)}\nexit code {status}:\n{text}")


def read_result(spec: RunSpec, folder: Path) -> Result:
    """Read the result of a finished run from its events; the last of repeated evaluations of a step counts."""
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    miou_by_step = {event["step"]: event["miou"] for event in events if event["event"] == "evaluation"}
    counted = {
        f"{sum(iou is not None for iou in event['per_class'].values())} of {len(event['per_class'])} classes"
        for event in events
        if event["event"] == "evaluation"
    }
    students = [event["student"]["miou"] for event in events if "student" in event]
    last = max(miou_by_step)
    return Result(
        split=spec.split,
        method=spec.variant,
        seed=spec.seed,
        best=max(miou_by_step.values()),
        last=miou_by_step[last],
        student=students[-1] if students else None,
        curve=miou_by_step,
        over=" or ".join(sorted(counted)),
        seconds=sum(map(float, (folder / SECONDS).read_text(encoding="utf-8").split())),
    )


def report(results: list[Result], options: argparse.Namespace) -> dict[str, Any]:
    """Return the results with the recipe, the device and the versions."""
    return {
        "recipe": load_recipe(options.recipe, [*options.overrides]).as_dict(),
        "steps": options.steps,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "runs": [result._asdict() for result in results],
    }


if __name__ == "__main__":
    sys.exit(main())
