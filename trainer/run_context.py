"""The fixed inputs and outputs of a run; what changes at every step is in `trainer.training_state`."""

from dataclasses import dataclass
from pathlib import Path

from trainer.config import Recipe
from trainer.events import Events
from trainer.processes import Processes
from trainer.run_data import RunData


@dataclass(frozen=True, slots=True)
class RunContext:
    """Recipe, data, run folder, event log and processes of a run.

    Attributes:
        recipe: the resolved recipe.
        data: images by split.
        out: the run folder.
        events: the event log; it discards events in all processes but the main one.
        processes: rank, number and device of the processes.
    """

    recipe: Recipe
    data: RunData
    out: Path
    events: Events
    processes: Processes
