"""What stays the same while a run goes on."""

from dataclasses import dataclass
from pathlib import Path

from trainer.batches import RunData
from trainer.config import Recipe
from trainer.events import Events
from trainer.processes import Processes


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done, with what, where, and who hears of it.

    Attributes:
        recipe: the run's.
        data: its images by role.
        out: the run folder.
        events: where progress is told; silent in all processes but the first.
        processes: this one among its fellows.
    """

    recipe: Recipe
    data: RunData
    out: Path
    events: Events
    processes: Processes
