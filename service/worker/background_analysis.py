"""Analyse the pool in a thread of the worker that yields to everything else."""

from __future__ import annotations

import os
import sys
import threading
import time

from service.analyses.analyst import Analyst
from service.analyses.drift_watch import DriftWatch
from service.segmentation.inference.cancellation import InferenceCancelled
from service.state import State
from service.worker.fault_log import FaultLog

NICENESS = 19
# Time without new images after which the model's memory is freed.
IDLE_S = 60.0
# Pause after a fault, such as a model that cannot be loaded.
PAUSE_S = 30.0


def make_analyst(state: State) -> Analyst:
    """Create the analyst of a process."""
    return Analyst(
        settings=state.settings,
        database=state.database,
        images=state.images,
        models=state.models,
        limits=state.limits,
        vectors=state.vectors,
    )


def watch_drift(state: State) -> None:
    """Test for drift if a window of new images is analysed; the sweep starts the run."""
    activated = state.models.activated()
    if activated is not None:
        DriftWatch(state.settings, state.database, state.vectors).test_if_due(activated.version)


def analyse_in_background(state: State, ending: threading.Event) -> None:
    """Analyse images until `ending` is set."""
    _lower_priority()
    analyst, busy_at, faults = make_analyst(state), time.monotonic(), FaultLog("analysis", state.settings.data_dir)
    while not ending.is_set():
        try:
            analysed = analyst.analyse_batch(ending.is_set)
            if analysed:
                watch_drift(state)
        except InferenceCancelled:
            return
        except Exception as error:
            faults.report(error)
            ending.wait(PAUSE_S)
            continue
        faults.report()
        if analysed:
            busy_at = time.monotonic()
            continue
        if time.monotonic() - busy_at > IDLE_S:
            analyst.release()
        ending.wait(state.settings.heartbeat_s)


def _lower_priority() -> None:
    # On Linux, a thread has a priority of its own, and the threads that it starts inherit it.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
