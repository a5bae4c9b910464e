"""`train RECIPE`: run the training that a recipe describes; `train DATASET`: choose the recipe, then run it."""

import argparse
import datetime as dt
import os
from itertools import count
from pathlib import Path

import tomli_w
from rich.console import Console

from trainer.atomic_write import atomic_write
from trainer.config import Recipe
from trainer.events import Events, NullEvents
from trainer.main_process import is_main_process
from trainer.planning.plan_run import PlannedRun, plan_run
from trainer.recipe_file import load_recipe
from trainer.run_error import RunError
from trainer.stop_signals import Stopped
from trainer.train import train

STOPPED = 75
"""Exit code after SIGTERM or Ctrl-C, with the state saved (EX_TEMPFAIL of sysexits: try again)."""


def add(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.description = (
        "Train a model. For the folder of a data set, a recipe is chosen by its images and this machine, shown with "
        "reasons, and written to RUN_DIR/recipe.toml. Prints JSON lines on stdout, and a progress bar on a terminal. "
        "Ctrl-C saves the state and stops. For several GPUs or machines use torchrun --nproc-per-node=4 -m trainer "
        "train RECIPE, or accelerate launch: the recipe's batches are divided among them, and all must see the same "
        "RUN_DIR."
    )
    command.add_argument("recipe", type=Path, metavar="RECIPE|DATASET", help="a TOML file, or the folder of a data set")
    out = "run folder (default: runs/NAME of the recipe, or runs/NAME-DATE of the data set)"
    command.add_argument("--out", type=Path, metavar="RUN_DIR", help=out)
    override = "override a setting, for example --set train.steps=100; may be repeated"
    command.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", help=override)
    command.add_argument("--resume", action="store_true", help="continue the stopped run in RUN_DIR")
    command.add_argument("--dry-run", action="store_true", help="write RUN_DIR/recipe.toml, and do not train")


def run(options: argparse.Namespace) -> int:
    """Train; returns 0 when finished, 75 when stopped with the state saved."""
    notices: list[str] = []
    out = options.out or _default_out(options)
    planned = None
    if not options.recipe.is_dir():
        recipe = load_recipe(options.recipe, options.set, notices)
    elif options.resume:
        recipe = load_recipe(out / "recipe.toml", options.set, notices)
    else:
        planned = _plan(options, out)
        recipe = planned.recipe
    _make_run_folder(out, resume=options.resume)
    if planned:
        planned.write_lists()
    if options.dry_run:
        return _write_recipe(recipe, out)
    with Events(out) if is_main_process() else NullEvents() as events:
        if planned:
            events.emit("plan", **planned.as_event())
        for message in notices:
            events.emit("notice", message=message)
        try:
            train(recipe, out, events, resume=options.resume)
        except Stopped as stopped:
            events.emit("stopped", message=str(stopped))
            return STOPPED
    return 0


def _default_out(options: argparse.Namespace) -> Path:
    source: Path = options.recipe
    if not source.is_dir():
        return Path("runs") / source.stem
    if options.resume:
        raise RunError("--resume: which run? Give its folder with --out")
    today = dt.datetime.now().astimezone().date().isoformat()
    first = Path("runs") / f"{source.resolve().name}-{today}"
    later = (first.with_name(f"{first.name}-{number}") for number in count(2))
    return first if not first.exists() else next(path for path in later if not path.exists())


def _plan(options: argparse.Namespace, out: Path) -> PlannedRun:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RunError(
            f"{options.recipe}: several processes need a recipe; write it with --dry-run in one process, and give "
            f"{out / 'recipe.toml'} to all"
        )
    return plan_run(options.recipe, options.set, out, Console(stderr=True))


def _make_run_folder(out: Path, *, resume: bool) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{out}: cannot be used as a run folder ({error.strerror}); give another --out") from error
    if (out / "model.safetensors").exists():
        raise RunError(f"{out}: contains a finished run; give another --out, or remove the folder to repeat the run")
    if (out / "resume.pt").exists() and not resume:
        raise RunError(f"{out}: contains a stopped run; continue it with --resume, or give another --out")


def _write_recipe(recipe: Recipe, out: Path) -> int:
    with atomic_write(out / "recipe.toml") as file:
        file.write_text(tomli_w.dumps(recipe.as_dict()), encoding="utf-8")
    print(out / "recipe.toml")
    return 0
