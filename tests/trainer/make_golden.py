"""Rewrite tests/golden/losses.json: `make golden`.

Only for an intended change of the numerics, with the reason in the commit.
"""

import dataclasses
import io
import json
import tempfile
from pathlib import Path

from tests.trainer.conftest import TINY_VIT, make_recipe, write_dataset
from trainer.config import UniMatch
from trainer.events import Events
from trainer.step import METHODS
from trainer.train import train

PATH = Path(__file__).parents[1] / "golden" / "losses.json"
STEPS = 8


def golden_losses(method: str, folder: Path) -> list[float]:
    """The losses of eight steps of a method on generated data."""
    stream = io.StringIO()
    with Events(stream=stream) as events:
        recipe = make_recipe(write_dataset(folder / "data"), method, model=TINY_VIT, steps=STEPS)
        # With threshold 0 every pixel counts, so a change of any part of the method changes the losses.
        everything = dataclasses.replace(recipe, unimatch=UniMatch(confidence_threshold=0.0))
        train(everything, folder / "run", events)
    return [event["loss"] for event in map(json.loads, stream.getvalue().splitlines()) if event["event"] == "progress"]


def main() -> None:
    """Write the curves of all methods."""
    curves = {}
    for method in METHODS:
        with tempfile.TemporaryDirectory() as name:
            curves[method] = golden_losses(method, Path(name))
    PATH.write_text(json.dumps(curves, indent=1) + "\n")


if __name__ == "__main__":
    main()
