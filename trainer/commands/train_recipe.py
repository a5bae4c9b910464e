"""`train RECIPE`: run the training that a recipe describes."""

import argparse
from pathlib import Path

from trainer.events import Events, NullEvents
from trainer.main_process import is_main_process
from trainer.recipe_file import load_recipe
from trainer.run_error import RunError
from trainer.stop_signals import Stopped
from trainer.train import train

STOPPED = 75
"""Exit code after SIGTERM or Ctrl-C, with the state saved (EX_TEMPFAIL of sysexits: try again)."""


def add(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.description = (
        "Train a model. Prints JSON lines on stdout, and a progress bar on a terminal. Ctrl-C saves the state and "
        "stops. For several GPUs or machines use torchrun --nproc-per-node=4 -m trainer train RECIPE, or accelerate "
        "launch: the recipe's batches are divided among them, and all must see the same RUN_DIR."
    )
    command.add_argument("recipe", type=Path, metavar="RECIPE", help="a TOML file, such as trainer/recipes/camvid.toml")
    command.add_argument("--out", type=Path, metavar="RUN_DIR", help="run folder (default: runs/NAME of the recipe)")
    override = "override a setting, for example --set train.steps=100; may be repeated"
    command.add_argument("--set", action="append", metavar="A.B=VALUE", help=override)
    command.add_argument("--resume", action="store_true", help="continue the stopped run in RUN_DIR")


def run(options: argparse.Namespace) -> int:
    """Train; returns 0 when finished, 75 when stopped with the state saved."""
    notices: list[str] = []
    recipe = load_recipe(options.recipe, options.set, notices)
    out = options.out or Path("runs") / options.recipe.stem
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{out}: cannot be used as a run folder ({error.strerror}); give another --out") from error
    if (out / "model.safetensors").exists():
        raise RunError(f"{out}: contains a finished run; give another --out, or remove the folder to repeat the run")
    if (out / "resume.pt").exists() and not options.resume:
        raise RunError(f"{out}: contains a stopped run; continue it with --resume, or give another --out")
    with Events(out) if is_main_process() else NullEvents() as events:
        for message in notices:
            events.emit("notice", message=message)
        try:
            train(recipe, out, events, resume=options.resume)
        except Stopped as stopped:
            events.emit("stopped", message=str(stopped))
            return STOPPED
    return 0
