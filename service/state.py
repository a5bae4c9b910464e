"""State of a process: settings, stores, model and pipeline. App and worker open and close it."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from service.analyses.image_orders import ImageOrders
from service.database_collector import DatabaseCollector
from service.images.collection_policy import CollectionPolicy
from service.images.image_store import ImageStore
from service.keys.key_ring import KeyRing
from service.keys.key_store import KeyStore
from service.keys.rate_limits import RateLimits
from service.metrics import Metrics
from service.models.active_model import ActiveModel
from service.models.model_store import ModelStore
from service.open_inference.model_repository import ModelRepository
from service.open_inference.statistics import Statistics
from service.queue import RUN_TASK, Queue
from service.releases.release_store import ReleaseStore
from service.releases.release_watch import ReleaseWatch
from service.releases.rollout.candidate_model import CandidateModel
from service.releases.rollout.shadow_runner import ShadowRunner
from service.releases.watch.traffic_counters import TrafficCounters
from service.releases.watch.watched_predictor import watched
from service.retention.deletion import Deletion
from service.retention.operating_clock import OperatingClock
from service.retention.retention_sweep import Retention
from service.runs.leases.liveness import Liveness
from service.runs.policy.retrain_policy import RetrainPolicy
from service.runs.run_store import RunStore
from service.segmentation.admission.admission_gate import AdmissionGate
from service.segmentation.decode import Limits
from service.segmentation.pipeline import Pipeline
from service.settings import Settings, mistyped_variables
from service.storage.blob_store import BlobStore
from service.storage.data_folder import DataFolder
from service.storage.database import Database
from service.storage.local_blobs import LocalBlobs
from service.storage.migrate import migrate
from service.storage.remote_blobs import RemoteBlobs
from service.storage.vector_file import VectorFolder
from service.tracing import Tracing

log = structlog.stdlib.get_logger(__name__)

# Concurrent /v2 requests with bodies above the limit for encoded images.
LARGE_BODIES = 4


@dataclass(frozen=True, slots=True)
class State:
    """The parts of a process. `active_model`, `keys` and others are idle until `start_state`."""

    settings: Settings
    limits: Limits
    metrics: Metrics
    database: Database
    data_folder: DataFolder
    images: ImageStore
    vectors: VectorFolder
    collection_policy: CollectionPolicy
    image_orders: ImageOrders
    models: ModelStore
    active_model: ActiveModel
    pipeline: Pipeline
    upload_gate: AdmissionGate
    """Limits uploads to the pool."""
    keys: KeyRing
    rate_limits: RateLimits
    batch_gate: AdmissionGate
    """Limits batch requests, whose images wait on disk."""
    conversion_gate: AdmissionGate
    """Limits imports and exports of labels, which run the trainer."""
    queue: Queue
    runs: RunStore
    releases: ReleaseStore
    candidates: CandidateModel
    """Gives a share of the requests to the candidate of a release."""
    shadow: ShadowRunner
    release_watch: ReleaseWatch
    liveness: Liveness
    retrain_policy: RetrainPolicy
    deletion: Deletion
    retention: Retention
    model_repository: ModelRepository
    statistics: Statistics
    large_bodies: asyncio.Semaphore
    database_collector: DatabaseCollector
    tracing: Tracing | None

    def close(self) -> None:
        """Stop the threads and close connections."""
        self.keys.stop()
        self.data_folder.stop()
        self.shadow.stop()
        self.release_watch.stop()
        self.active_model.stop()
        self.pipeline.close()
        self.queue.close()
        self.database.close()
        if self.tracing is not None:
            self.tracing.close()


def open_state(
    settings: Settings, tracing: Tracing | None = None, clock: Callable[[], float] = time.monotonic
) -> State:
    """Create the data folder, migrate the database and open the stores. Loads no model.

    Whether other processes are alive is judged by `clock`, in seconds.
    """
    _warn_of_mistyped_variables()
    database = _open_database(settings)
    metrics = Metrics()
    limits = Limits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels)
    vectors = VectorFolder(settings.data_dir / "embeddings")
    models = ModelStore(settings, database)
    traffic = TrafficCounters()
    active_model = ActiveModel(settings, models, metrics, lambda model: watched(model, traffic))
    candidates = CandidateModel(settings, models, traffic)
    shadow = ShadowRunner(settings, candidates, lambda: pipeline.is_busy)
    pipeline = Pipeline(settings, metrics, limits, on_admission=shadow.interrupt)
    queue = Queue(settings.broker_url)
    if tracing is not None:
        tracing.start()
    liveness = Liveness(settings.heartbeat_s, clock)
    database_collector = DatabaseCollector(database, liveness)
    metrics.registry.register(database_collector)
    images = ImageStore(database, open_blobs(settings), limits, vectors, settings.pool_max_bytes)
    deletion = Deletion(settings=settings, database=database, models=models, vectors=vectors, liveness=liveness)
    return State(
        settings=settings,
        limits=limits,
        metrics=metrics,
        database=database,
        data_folder=DataFolder(settings.data_dir, metrics.storage_writable),
        images=images,
        vectors=vectors,
        collection_policy=CollectionPolicy(settings),
        image_orders=ImageOrders(database, images, models, vectors),
        models=models,
        active_model=active_model,
        pipeline=pipeline,
        upload_gate=AdmissionGate(settings.max_concurrent_requests, metrics.uploads_admitted, metrics.uploads_refused),
        keys=KeyRing(settings, KeyStore(database)),
        rate_limits=RateLimits(),
        batch_gate=_open_batch_gate(settings, metrics),
        conversion_gate=_open_conversion_gate(settings, metrics),
        queue=queue,
        runs=RunStore(database),
        releases=ReleaseStore(database),
        candidates=candidates,
        shadow=shadow,
        release_watch=ReleaseWatch(settings, database, traffic, candidates, shadow, on_activation=active_model.wake),
        liveness=liveness,
        retrain_policy=RetrainPolicy(settings, database, models, metrics, liveness, partial(queue.enqueue, RUN_TASK)),
        deletion=deletion,
        retention=Retention(deletion, images, OperatingClock(database, clock)),
        model_repository=ModelRepository(models, active_model),
        statistics=Statistics(),
        large_bodies=asyncio.Semaphore(LARGE_BODIES),
        database_collector=database_collector,
        tracing=tracing,
    )


def _warn_of_mistyped_variables() -> None:
    for name, meant in mistyped_variables().items():
        log.warning("unknown setting ignored", variable=name, did_you_mean=meant)


def _open_database(settings: Settings) -> Database:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.resolved_database_url)
    migrate(database.engine, settings.data_dir / "migrate.lock")
    return database


def _open_batch_gate(settings: Settings, metrics: Metrics) -> AdmissionGate:
    return AdmissionGate(
        settings.max_concurrent_batches,
        metrics.batches_admitted,
        metrics.batches_refused,
        jobs="batches",
        setting="MASKLOOP_MAX_CONCURRENT_BATCHES",
    )


def _open_conversion_gate(settings: Settings, metrics: Metrics) -> AdmissionGate:
    return AdmissionGate(
        settings.max_concurrent_conversions,
        metrics.conversions_admitted,
        metrics.conversions_refused,
        jobs="imports and exports",
        setting="MASKLOOP_MAX_CONCURRENT_CONVERSIONS",
    )


def open_blobs(settings: Settings) -> BlobStore:
    """Open the storage of images and masks. Raises StorageFailed."""
    return RemoteBlobs(settings.storage_url) if settings.storage_url else LocalBlobs(settings.data_dir / "blobs")


def start_state(settings: Settings, tracing: Tracing | None = None) -> State:
    """Open the state of a serving process and start its background threads, which load the model first.

    Raises BundleInvalid or StorageFailed for the start model, or KeyFileInvalid.
    """
    state = open_state(settings, tracing)
    try:
        # A killed process may have left files; the worker does not use this folder.
        shutil.rmtree(settings.tmp_dir, ignore_errors=True)
        settings.tmp_dir.mkdir(exist_ok=True)
        state.models.classes.take_first()
        state.models.ensure_start_model()
        state.models.classes.take_first()
        state.keys.start()
        state.data_folder.start()
        state.active_model.start()
        state.shadow.start()
        state.release_watch.start()
    except BaseException:
        state.close()
        raise
    return state
