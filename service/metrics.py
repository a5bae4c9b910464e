"""Prometheus metrics, in one registry per application."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

REJECTIONS = ("overloaded", "deadline", "client_gone", "rate_limited")
"""Reasons for which a valid image is not segmented."""


class Metrics:
    """The metrics of one process. Durations are in seconds; labels are never ids."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Memory, CPU time, open files and start time.
        ProcessCollector(registry=self.registry)
        counter, gauge = partial(Counter, registry=self.registry), partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)

        self.requests = counter("maskloop_requests", "HTTP requests.", ["method", "route", "status"])
        self.request_seconds = histogram(
            "maskloop_request_seconds", "Duration of HTTP requests.", ["route"], buckets=SECONDS
        )
        self.requests_in_flight = gauge("maskloop_requests_in_flight", "HTTP requests in progress.")
        self.callers_refused = counter(
            "maskloop_callers_refused", "Requests rejected by authentication or rate limit.", ["reason"]
        )

        self.stage_seconds = histogram(
            "maskloop_segment_stage_seconds",
            "Duration of a stage of a segmentation: decode, queue, infer or encode.",
            ["stage", "model"],
            buckets=SECONDS,
        )
        self.admitted = gauge("maskloop_segment_admitted", "Segmentations in progress or queued.")
        self.capacity = gauge("maskloop_segment_places", "Limit on segmentations in progress or queued.")
        self.rejected = counter(
            "maskloop_segment_rejected",
            "Segmentations rejected, by reason: overloaded (admission control), deadline (the client's deadline "
            "passed), client_gone (the client disconnected), rate_limited.",
            ["reason"],
        )
        for reason in REJECTIONS:
            # Start every series at 0, or `increase()` misses its first event.
            self.rejected.labels(reason)
        self.batch_images = histogram(
            "maskloop_segment_batch_images", "Images in a GPU batch.", buckets=(1, 2, 4, 8, 16, 32)
        )
        self.batches_admitted = gauge("maskloop_batches_admitted", "Batch requests in progress.")
        self.batches_refused = counter("maskloop_batches_refused", "Batch requests rejected: too many in progress.")

        self.conversions_admitted = gauge("maskloop_conversions_admitted", "Imports and exports of labels in progress.")
        self.conversions_refused = counter(
            "maskloop_conversions_refused", "Imports and exports of labels rejected: too many in progress."
        )

        self.uploads_admitted = gauge("maskloop_uploads_admitted", "Uploads to the pool in progress.")
        self.uploads_refused = counter(
            "maskloop_uploads_refused", "Uploads to the pool rejected: too many in progress."
        )
        self.images_added = counter("maskloop_images_added", "New images in the pool.")
        self.runs_started = counter("maskloop_runs_enqueued", "Runs enqueued by this process.", ["reason"])

        self.storage_writable = gauge("maskloop_storage_writable", "Whether the data folder can be written.")

        self.model_info = gauge(
            "maskloop_model_info",
            "1 for the active version, with its precision and execution provider.",
            ["version", "precision", "provider"],
        )
        self.model_swaps = counter("maskloop_model_swaps", "Versions activated in this process.")
        self.model_failures = counter("maskloop_model_failures", "Versions that failed to load or to pass their probe.")

    def set_active_model(self, version: str, precision: str, provider: str) -> None:
        """Replace the version in `maskloop_model_info`."""
        active = {"version": version, "precision": precision, "provider": provider}
        self.model_info.labels(**active).set(1)
        for labels in _label_sets(self.model_info):
            if labels != active:
                self.model_info.remove_by_labels(labels)

    def keep_models(self, versions: AbstractSet[str]) -> None:
        """Remove the series of all other versions."""
        for removed in {labels["model"] for labels in _label_sets(self.stage_seconds)} - versions - {""}:
            self.stage_seconds.remove_by_labels({"model": removed})


def _label_sets(metric: Gauge | Histogram) -> list[dict[str, str]]:
    return [sample.labels for family in metric.collect() for sample in family.samples]
