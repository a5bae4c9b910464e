"""What lives as long as the process. Built by the app and by the worker, closed at the end; nothing is global."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from functools import partial

import structlog

from service.database_collector import DatabaseCollector
from service.images.image_store import ImageStore
from service.keys.key_ring import KeyRing
from service.keys.key_store import KeyStore
from service.keys.rate_limits import RateLimits
from service.metrics import Metrics
from service.models.active_model import ActiveModel
from service.models.model_store import ModelStore
from service.open_inference.model_repository import Repository
from service.open_inference.statistics import Statistics
from service.queue import RUN_TASK, Queue
from service.runs.retrain_policy import RetrainPolicy
from service.runs.run_store import RunStore
from service.segmentation.admission.admission_gate import AdmissionGate
from service.segmentation.decode import Limits
from service.segmentation.pipeline import Pipeline
from service.settings import Settings, mistyped_variables
from service.storage.blob_store import BlobStore
from service.storage.database import Database
from service.storage.migrate import migrate
from service.tracing import Tracing

log = structlog.stdlib.get_logger(__name__)

LARGE_BODIES = 4


@dataclass(frozen=True, slots=True)
class State:
    """The stores, and what answers. `active_model`, `pipeline` and `keys` do nothing until the app starts them."""

    settings: Settings
    limits: Limits
    """Of an image."""
    metrics: Metrics
    database: Database
    images: ImageStore
    models: ModelStore
    active_model: ActiveModel
    pipeline: Pipeline
    upload_gate: AdmissionGate
    """For images and masks that come into the pool."""
    keys: KeyRing
    rate_limits: RateLimits
    batch_gate: AdmissionGate
    """For requests of many images, which wait on the disk."""
    queue: Queue
    runs: RunStore
    retrain_policy: RetrainPolicy
    model_repository: Repository
    statistics: Statistics
    large_bodies: asyncio.Semaphore
    """For requests whose bodies may be larger than any file of an image: so few are in memory at one time."""
    database_collector: DatabaseCollector
    tracing: Tracing | None

    def close(self) -> None:
        """Stop the threads and close the files, the newest first."""
        self.keys.stop()
        self.active_model.stop()
        self.pipeline.close()
        self.queue.close()
        self.database.close()
        if self.tracing is not None:
            self.tracing.close()


def open_state(settings: Settings, tracing: Tracing | None = None) -> State:
    """Make the data folder, bring the database to its newest schema, and open the stores. Loads no model."""
    for name, meant in mistyped_variables().items():
        log.warning("no such setting, ignored", variable=name, perhaps_meant=meant)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.resolved_database_url)
    migrate(database.engine, settings.data_dir / "migrate.lock")
    metrics = Metrics()
    limits = Limits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels)
    models = ModelStore(settings, database)
    active_model = ActiveModel(settings, models, metrics)
    queue = Queue(settings.broker_url)
    if tracing is not None:
        tracing.start()
    database_collector = DatabaseCollector(database, settings.heartbeat_s)
    metrics.registry.register(database_collector)
    return State(
        settings=settings,
        limits=limits,
        metrics=metrics,
        database=database,
        images=ImageStore(database, BlobStore(settings.data_dir / "blobs"), limits),
        models=models,
        active_model=active_model,
        pipeline=Pipeline(settings, metrics, limits),
        upload_gate=AdmissionGate(settings.max_concurrent_requests, metrics.uploads_admitted, metrics.uploads_refused),
        keys=KeyRing(settings, KeyStore(database)),
        rate_limits=RateLimits(),
        batch_gate=AdmissionGate(settings.max_concurrent_batches, metrics.batches_admitted, metrics.batches_refused),
        queue=queue,
        runs=RunStore(database),
        retrain_policy=RetrainPolicy(settings, database, models, metrics, partial(queue.enqueue, RUN_TASK)),
        model_repository=Repository(models, active_model),
        statistics=Statistics(),
        large_bodies=asyncio.Semaphore(LARGE_BODIES),
        database_collector=database_collector,
        tracing=tracing,
    )


def start_state(settings: Settings, tracing: Tracing | None = None) -> State:
    """The state of a process that answers: what goes on beside the requests has begun, the model being loaded first.

    Raises:
        BundleInvalid: The model to begin with is none.
        KeyFileInvalid: The file of `MASKLOOP_API_KEY_FILE` contains no valid key.
        StorageFailed: The model to begin with cannot be read.
    """
    state = open_state(settings, tracing)
    try:
        # What a process that was killed left behind goes; the worker puts nothing here.
        shutil.rmtree(settings.tmp_dir, ignore_errors=True)
        settings.tmp_dir.mkdir(exist_ok=True)
        state.models.ensure_start_model()
        state.keys.start()
        state.active_model.start()
    except BaseException:
        state.close()
        raise
    return state
