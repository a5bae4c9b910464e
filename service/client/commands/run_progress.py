"""Wait for the end of a run, with its phase, its steps and the time left."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from service.client.commands.terminal import note, progress_bar

if TYPE_CHECKING:
    from service.client.answers import Run
    from service.client.sync_client import Client

POLL_S = 1.0


def follow(client: Client, run: Run) -> Run:
    """Return a run once it has ended. Ctrl-C ends the waiting, not the run. Raises CallError."""
    note(f"run {run.id}; Ctrl-C stops waiting, the run goes on: `maskloop runs wait {run.id}` waits again")
    phase = None
    with progress_bar() as progress:
        bar = progress.add_task(run.status, total=None)
        while not run.is_over:
            if run.phase != phase:
                # Each phase has its own steps, and its own pace.
                phase = run.phase
                progress.reset(bar, total=run.steps, description=phase or run.status)
                if progress.disable:
                    note(phase or run.status)
            progress.update(bar, completed=run.step or 0, total=run.steps)
            time.sleep(POLL_S)
            run = client.get_run(run.id)
    return run
