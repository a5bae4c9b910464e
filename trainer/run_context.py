"""The fixed inputs and outputs of a run; what changes at every step is in `trainer.training_state`."""

from dataclasses import dataclass
from pathlib import Path

from trainer.config import Recipe
from trainer.events import Events
from trainer.processes import Processes
from trainer.run_data import RunData


@dataclass(frozen=True, slots=True)
class RunContext:
    """Resolved recipe, data, run folder, event log (which discards events outside the main process) and processes."""

    recipe: Recipe
    data: RunData
    out: Path
    events: Events
    processes: Processes
