"""Prometheus metrics, in a registry per application, so that two applications in one process do not share them."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

REJECTIONS = ("overloaded", "deadline", "client_gone", "rate_limited")
"""Reasons for which a valid image is not segmented."""


class Metrics:
    """The metrics of one process. Durations are in seconds; labels have few values and are never ids."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Memory, CPU time, open files and start time, under their standard names.
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "maskloop_requests", "HTTP requests.", ["method", "route", "status"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "maskloop_request_seconds",
            "Duration of HTTP requests.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.requests_in_flight = Gauge(
            "maskloop_requests_in_flight", "HTTP requests in progress.", registry=self.registry
        )
        self.stage_seconds = Histogram(
            "maskloop_segment_stage_seconds",
            "Duration of a stage of a segmentation: decode, queue, infer or encode.",
            ["stage", "model"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.callers_refused = Counter(
            "maskloop_callers_refused",
            "Requests rejected by authentication or rate limit.",
            ["reason"],
            registry=self.registry,
        )
        self.admitted = Gauge(
            "maskloop_segment_admitted", "Segmentations in progress or queued.", registry=self.registry
        )
        self.places = Gauge(
            "maskloop_segment_places", "Limit on segmentations in progress or queued.", registry=self.registry
        )
        self.rejected = Counter(
            "maskloop_segment_rejected",
            "Segmentations rejected, by reason: overloaded (admission control), deadline (the client's deadline "
            "passed), client_gone (the client disconnected), rate_limited.",
            ["reason"],
            registry=self.registry,
        )
        for reason in REJECTIONS:
            # Start every series at 0, or `increase()` misses its first event.
            self.rejected.labels(reason)
        self.uploads_admitted = Gauge(
            "maskloop_uploads_admitted", "Uploads to the pool in progress.", registry=self.registry
        )
        self.uploads_refused = Counter(
            "maskloop_uploads_refused", "Uploads to the pool rejected: too many in progress.", registry=self.registry
        )
        self.batches_admitted = Gauge(
            "maskloop_batches_admitted", "Batch requests in progress.", registry=self.registry
        )
        self.batches_refused = Counter(
            "maskloop_batches_refused",
            "Batch requests rejected: too many in progress.",
            registry=self.registry,
        )
        self._add_models_and_runs()

    def _add_models_and_runs(self) -> None:
        self.batch_images = Histogram(
            "maskloop_segment_batch_images",
            "Images in a GPU batch.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self.registry,
        )
        self.model_info = Gauge(
            "maskloop_model_info",
            "1 for the active version, with its precision and execution provider.",
            ["version", "precision", "provider"],
            registry=self.registry,
        )
        self.model_swaps = Counter(
            "maskloop_model_swaps", "Versions activated in this process.", registry=self.registry
        )
        self.model_failures = Counter(
            "maskloop_model_failures", "Versions that failed to load or to pass their probe.", registry=self.registry
        )
        self.images_added = Counter("maskloop_images_added", "New images in the pool.", registry=self.registry)
        self.runs_started = Counter(
            "maskloop_runs_enqueued", "Runs enqueued by this process.", ["reason"], registry=self.registry
        )

    def set_active_model(self, version: str, precision: str, provider: str) -> None:
        """Replace the version in `maskloop_model_info`."""
        active = {"version": version, "precision": precision, "provider": provider}
        self.model_info.labels(**active).set(1)
        for labels in _label_sets(self.model_info):
            if labels != active:
                self.model_info.remove_by_labels(labels)

    def keep_models(self, versions: AbstractSet[str]) -> None:
        """Remove the series of all other versions, or every version that ever served would be scraped forever."""
        for removed in {labels["model"] for labels in _label_sets(self.stage_seconds)} - versions - {""}:
            self.stage_seconds.remove_by_labels({"model": removed})


def _label_sets(metric: Gauge | Histogram) -> list[dict[str, str]]:
    return [sample.labels for family in metric.collect() for sample in family.samples]
