"""Claim a run, perform it, and record its outcome."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog
from sqlalchemy.exc import DBAPIError

from service.errors import MaskloopError, StorageFailed
from service.images.image_store import ImageStore
from service.models.model_store import ModelStore
from service.releases.release_store import ReleaseStore
from service.runs.leases.lease import Lease, LeaseLost, claim
from service.runs.run_store import RunStore
from service.runs.worker.child_program import ProgramDiedError, ProgramError
from service.runs.worker.phases import Interrupted, Phases
from service.runs.worker.run_recipe import RecipeError
from service.settings import Settings
from service.storage.database import Database
from service.storage.storage_faults import reason_of, storage_fault
from service.tracing import Tracing, traced

log = structlog.stdlib.get_logger(__name__)


def perform(
    run_id: str,
    stopping: threading.Event,
    *,
    settings: Settings,
    database: Database,
    images: ImageStore,
    models: ModelStore,
    tracing: Tracing | None = None,
) -> None:
    """Perform a queued run until it ends; return at once if it is not queued.

    When the worker sets `stopping`, the run is returned to the queue, to be resumed.
    """
    lease = claim(database, run_id)
    if lease is None:
        log.info("run is not queued; nothing to do", run_id=run_id)
        return
    interruption = _interruption(lease, stopping, settings.run_timeout_s)
    with lease.with_heartbeat(settings.heartbeat_s), traced(tracing, "run", {"maskloop.run.id": run_id}):
        phases = Phases(
            settings=settings,
            runs=RunStore(database),
            images=images,
            models=models,
            releases=ReleaseStore(database),
            lease=lease,
            interruption=interruption,
        )
        try:
            _conclude(phases, lease, settings)
        except LeaseLost:
            log.warning("run was taken over by another worker", run_id=run_id)
        except DBAPIError as error:
            # The lease expires, and a sweep ends the attempt.
            log.warning("the database does not answer; the attempt ends", run_id=run_id, cause=reason_of(error))
        if lease.finished:
            phases.delete_copies()


def _conclude(phases: Phases, lease: Lease, settings: Settings) -> None:
    try:
        phases.run()
    except Interrupted as why:
        _interrupt(lease, str(why), settings)
    except LeaseLost:
        raise
    except (ProgramDiedError, StorageFailed) as error:
        # Another attempt may succeed.
        lease.end_attempt(str(error))
    except (MaskloopError, ProgramError, RecipeError, OSError) as error:
        lease.finish("failed", str(storage_fault(error, settings.data_dir) or error))
    except DBAPIError as error:
        fault = storage_fault(error, settings.data_dir)
        if fault is None:
            _fail_unexpectedly(lease, error)
        else:
            lease.end_attempt(f"{fault} ({reason_of(error)})")
    except Exception as error:
        _fail_unexpectedly(lease, error)
    else:
        lease.finish("judged")


def _fail_unexpectedly(lease: Lease, error: Exception) -> None:
    log.exception("run failed with an unexpected error", run_id=lease.run_id)
    lease.finish("failed", f"{type(error).__name__}: {error}")


def _interrupt(lease: Lease, why: str, settings: Settings) -> None:
    if why == "cancelled":
        lease.finish("cancelled")
    elif why == "stopping":
        lease.release()
    elif why == "timeout":
        lease.finish(
            "failed",
            f"The run exceeded {settings.run_timeout_s:.0f} s and was stopped: lower train.steps in the recipe, or "
            "raise MASKLOOP_RUN_TIMEOUT_S.",
        )
    else:
        raise LeaseLost(lease.run_id)


def _interruption(lease: Lease, stopping: threading.Event, timeout_s: float) -> Callable[[], str | None]:
    # The timeout applies to each attempt: waiting for a worker does not count.
    deadline = time.monotonic() + timeout_s

    def interruption() -> str | None:
        if lease.interruption is not None:
            return lease.interruption
        if stopping.is_set():
            return "stopping"
        return "timeout" if time.monotonic() > deadline else None

    return interruption
