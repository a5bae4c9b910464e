"""What Prometheus may read, in a registry of its own, so that two apps in one process do not meet."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

REJECTIONS = ("overloaded", "deadline", "client_gone", "rate_limited")
"""Why an image is not segmented that nothing is wrong with."""


class Metrics:
    """The collectors of one process. Durations are in seconds; labels take few values (never ids)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Memory, CPU time, open files, start: under the names that every exporter gives them.
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "maskloop_requests", "HTTP requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "maskloop_request_seconds", "Whole request.", ["route"], buckets=SECONDS, registry=self.registry
        )
        self.requests_in_flight = Gauge(
            "maskloop_requests_in_flight", "HTTP requests that are being answered.", registry=self.registry
        )
        self.stage_seconds = Histogram(
            "maskloop_segment_stage_seconds",
            "One stage of a segmentation: decode, queue, infer or encode.",
            ["stage", "model"],
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
        self.places = Gauge(
            "maskloop_segment_places", "Segmentations that may run or wait at one time.", registry=self.registry
        )
        self.rejected = Counter(
            "maskloop_segment_rejected",
            "Segmentations not done, by reason: overloaded (all places taken), deadline (not done in the time that "
            "the client gave), client_gone (dropped before inference), rate_limited.",
            ["reason"],
            registry=self.registry,
        )
        for reason in REJECTIONS:
            # A series that begins at its first event hides that event from `increase()`.
            self.rejected.labels(reason)
        self.uploads_admitted = Gauge(
            "maskloop_uploads_admitted", "Images and masks for the pool under way.", registry=self.registry
        )
        self.uploads_refused = Counter(
            "maskloop_uploads_refused", "Images and masks refused: too many were under way.", registry=self.registry
        )
        self.batches_admitted = Gauge(
            "maskloop_batches_admitted", "Requests of many images under way.", registry=self.registry
        )
        self.batches_refused = Counter(
            "maskloop_batches_refused",
            "Requests of many images refused: too many were under way.",
            registry=self.registry,
        )
        self._add_models_and_runs()

    def _add_models_and_runs(self) -> None:
        self.batch_images = Histogram(
            "maskloop_segment_batch_images",
            "Images that a GPU took at one time.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self.registry,
        )
        self.model_info = Gauge(
            "maskloop_model_info",
            "1 for the version that answers, with what it computes in and on.",
            ["version", "precision", "provider"],
            registry=self.registry,
        )
        self.model_swaps = Counter("maskloop_model_swaps", "Versions put into service.", registry=self.registry)
        self.model_failures = Counter(
            "maskloop_model_failures", "Versions that failed to load or to pass their probe.", registry=self.registry
        )
        self.images_added = Counter("maskloop_images_added", "New images in the pool.", registry=self.registry)
        self.runs_started = Counter(
            "maskloop_runs_enqueued", "Runs written and enqueued by this process.", ["reason"], registry=self.registry
        )

    def serves(self, version: str, precision: str, provider: str) -> None:
        """This version answers now, and the one before no longer."""
        now = {"version": version, "precision": precision, "provider": provider}
        self.model_info.labels(**now).set(1)
        for labels in _label_sets(self.model_info):
            if labels != now:
                self.model_info.remove_by_labels(labels)

    def keep_models(self, versions: AbstractSet[str]) -> None:
        """Forget the series of all other versions: else every version that ever answered would be scraped for ever."""
        for gone in {labels["model"] for labels in _label_sets(self.stage_seconds)} - versions - {""}:
            self.stage_seconds.remove_by_labels({"model": gone})


def _label_sets(metric: Gauge | Histogram) -> list[dict[str, str]]:
    return [sample.labels for family in metric.collect() for sample in family.samples]
