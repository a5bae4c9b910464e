"""What Prometheus may read, in a registry of its own, so that two apps in one process do not meet."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The collectors of one process. Durations are in seconds; labels take few values (never ids)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "maskloop_requests", "HTTP requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "maskloop_request_seconds", "Whole request.", ["route"], buckets=SECONDS, registry=self.registry
        )
        self.stage_seconds = Histogram(
            "maskloop_segment_stage_seconds",
            "One stage of a segmentation: decode, queue, infer or encode.",
            ["stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.callers_refused = Counter(
            "maskloop_callers_refused",
            "Requests refused for their key, or for how many there were.",
            ["reason"],
            registry=self.registry,
        )
        self.admitted = Gauge("maskloop_segment_admitted", "Segmentations running or waiting.", registry=self.registry)
        self.refused = Counter(
            "maskloop_segment_refused", "Segmentations refused because too many waited.", registry=self.registry
        )
        self.uploads_admitted = Gauge(
            "maskloop_uploads_admitted", "Images and masks for the pool under way.", registry=self.registry
        )
        self.uploads_refused = Counter(
            "maskloop_uploads_refused", "Images and masks refused: too many were under way.", registry=self.registry
        )
        self.dropped = Counter(
            "maskloop_segment_dropped", "Dropped before inference: the client had gone.", registry=self.registry
        )
        self.expired = Counter(
            "maskloop_segment_expired",
            "Segmentations not done in the time that the client gave.",
            registry=self.registry,
        )
        self.batch_images = Histogram(
            "maskloop_segment_batch_images",
            "Images that a GPU took at one time.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self.registry,
        )
        self.model_info = Gauge(
            "maskloop_model_info", "1 for the version that answers.", ["version"], registry=self.registry
        )
        self.model_swaps = Counter("maskloop_model_swaps", "Versions put into service.", registry=self.registry)
        self.model_failures = Counter(
            "maskloop_model_failures", "Versions that failed to load or to pass their probe.", registry=self.registry
        )
        self.images_added = Counter("maskloop_images_added", "New images in the pool.", registry=self.registry)
        self.runs_started = Counter(
            "maskloop_runs_enqueued", "Runs written and enqueued by this process.", ["reason"], registry=self.registry
        )

    def exposition(self) -> bytes:
        """Everything, in the Prometheus text format."""
        return generate_latest(self.registry)
