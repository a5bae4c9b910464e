"""`train RECIPE`: train by a recipe."""

import argparse
from pathlib import Path

from trainer.events import Events, Silent
from trainer.processes import is_main
from trainer.recipe_file import load_recipe
from trainer.run_error import RunError
from trainer.stopping import Stopped
from trainer.train import train

STOPPED = 75
"""Exit code of a run that SIGTERM or Ctrl-C ended with its state saved (sysexits' EX_TEMPFAIL: try again)."""


def add(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.description = (
        "Train by a recipe. JSON lines on stdout, a progress bar on a terminal. Ctrl-C saves the state. Several GPUs "
        "or machines: torchrun --nproc-per-node=4 -m trainer train RECIPE, or accelerate launch; the recipe's batches "
        "are shared among them, and RUN_DIR must be one folder for all."
    )
    command.add_argument("recipe", type=Path, metavar="RECIPE", help="a TOML file, such as trainer/recipes/camvid.toml")
    command.add_argument("--out", type=Path, metavar="RUN_DIR", help="run folder (default: runs/NAME of the recipe)")
    override = "override a field, for example --set train.steps=100; may be repeated"
    command.add_argument("--set", action="append", metavar="A.B=VALUE", help=override)
    command.add_argument(
        "--resume", action="store_true", help="go on from the state that a stopped run left in RUN_DIR"
    )
    command.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Train; 0 when done, 75 when stopped with the state saved."""
    recipe = load_recipe(options.recipe, options.set)
    out = options.out or Path("runs") / options.recipe.stem
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{out}: cannot be a run folder ({error.strerror}); give another --out") from error
    if (out / "model.safetensors").exists():
        raise RunError(f"{out}: holds a finished run; give another --out, or remove the folder to train it anew")
    if (out / "resume.pt").exists() and not options.resume:
        raise RunError(f"{out}: holds a run that was stopped; go on with --resume, or give another --out")
    with Events(out) if is_main() else Silent() as events:
        try:
            train(recipe, out, events, resume=options.resume)
        except Stopped as stopped:
            events.emit("stopped", message=str(stopped))
            return STOPPED
    return 0
