"""Writes tests/golden/unimatch_v2_losses.json anew: `python -m tests.trainer.make_golden`.

Only when the numerics are meant to change, with the reason in the commit.
"""

import dataclasses
import io
import json
import tempfile
from pathlib import Path

from tests.trainer.conftest import TINY_VIT, make_recipe, write_dataset
from trainer.config import UniMatch
from trainer.events import Events
from trainer.train import train

STEPS = 8


def golden_losses(folder: Path) -> list[float]:
    """The losses of eight steps of UniMatch V2 on the generated data set."""
    stream = io.StringIO()
    with Events(stream=stream) as events:
        recipe = make_recipe(write_dataset(folder / "data"), model=TINY_VIT, steps=STEPS)
        # Every pixel counts, so that a change of any part of the method shows.
        everything = dataclasses.replace(recipe, unimatch=UniMatch(confidence_threshold=0.0))
        train(everything, folder / "run", events)
    return [event["loss"] for event in map(json.loads, stream.getvalue().splitlines()) if event["event"] == "progress"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        path = Path(__file__).parents[1] / "golden" / "unimatch_v2_losses.json"
        path.write_text(json.dumps(golden_losses(Path(name))) + "\n")
