"""Metrics: valid for Prometheus, named by its conventions, and bounded in number."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from fastapi.testclient import TestClient
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from service.metrics import Metrics
from service.models.active_model import ActiveModel
from service.state import State
from tests.service.conftest import MakeSettings, encoded
from tests.service.tiny_bundle import COLORS, picture, write_bundle

OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0"}
# https://prometheus.io/docs/practices/naming: base units, as a suffix; no other unit and no type in a name.
UNWANTED = ("_ms", "_milliseconds", "_minutes", "_percent", "_kb", "_mb", "_count", "_gauge", "_counter", "_histogram")


def test_metrics_are_valid_in_the_text_format(client: TestClient) -> None:
    client.post("/v1/segment", content=encoded(picture()))
    client.get("/nowhere")
    check(list(parse_text(client.get("/metrics").text)))


def test_metrics_are_valid_openmetrics_on_request(client: TestClient) -> None:
    """The parser is stricter than the other: order, types, units, sums of buckets, one `# EOF`."""
    client.post("/v1/segment", content=encoded(picture()))
    response = client.get("/metrics", headers=OPENMETRICS)
    assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    check(list(parse_openmetrics(response.text)))  # type: ignore[no-untyped-call]  # the library types only the other


def check(families: Iterable[Metric]) -> None:
    """Check our metrics as `promtool check metrics` does."""
    ours = [family for family in families if family.name.startswith("maskloop_")]
    assert len(ours) > 15
    for family in ours:
        assert family.documentation.endswith("."), family.name
        assert not family.name.endswith(UNWANTED), family.name
        assert ("second" in family.documentation.lower()) <= family.name.endswith("_seconds"), family.name
        for sample in family.samples:
            # `_created` is added by the library to each counter and histogram.
            is_count = sample.name.endswith(("_total", "_created"))
            assert (family.type == "counter") <= is_count, sample.name
            assert "le" not in sample.labels or family.type == "histogram", sample.name


def test_stages_and_active_model_are_measured(client: TestClient) -> None:
    client.post("/v1/segment", content=encoded(picture()))
    value = client.app_state["maskloop"].metrics.registry.get_sample_value
    version = "20260101T000000-aaaaaaaa"
    for stage in ("decode", "queue", "infer", "encode"):
        labels = {"stage": stage, "model": version}
        assert value("maskloop_segment_stage_seconds_count", labels) == 1
        assert 0 <= value("maskloop_segment_stage_seconds_sum", labels) < 60
    labels = {"version": version, "precision": "fp32", "provider": "CPUExecutionProvider"}
    assert value("maskloop_model_info", labels) == 1
    assert value("maskloop_segment_places") == 32
    assert value("maskloop_requests_in_flight") == 0


def test_rejection_counters_exist_from_the_start() -> None:
    value = Metrics().registry.get_sample_value
    for reason in ("overloaded", "deadline", "client_gone", "rate_limited"):
        assert value("maskloop_segment_rejected_total", {"reason": reason}) == 0


def test_process_metrics(client: TestClient) -> None:
    text = client.get("/metrics").text
    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"):
        assert f"\n{name} " in text


def test_only_the_active_version_is_in_model_info() -> None:
    metrics = Metrics()
    metrics.set_active_model("one", "fp32", "CPUExecutionProvider")
    metrics.set_active_model("two", "int8", "CPUExecutionProvider")
    assert [sample.labels["version"] for family in metrics.model_info.collect() for sample in family.samples] == ["two"]


def test_metrics_of_unloaded_versions_are_removed(
    state: State, make_settings: MakeSettings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """For activated versions as well as for requested ones."""
    active_model = ActiveModel(make_settings(extra_models=1), state.models, state.metrics)
    for number in range(5):
        folder = tmp_path_factory.mktemp("bundles") / "bundle"
        colors = COLORS[number:] + COLORS[:number]
        state.models.import_folder(write_bundle(folder, version=f"v{number}", colors=colors))
    for number in range(5):
        state.models.activate(f"v{number}", "test")
        active_model.refresh()
        assert active_model.require().version == f"v{number}"
        state.metrics.stage_seconds.labels("infer", f"v{number}").observe(1)
    # The active version, and the previous one, whose last values may not have been scraped yet.
    assert measured_versions(state.metrics) == {"v3", "v4"}
    for number in range(3):
        active_model.lease(f"v{number}")
        state.metrics.stage_seconds.labels("infer", f"v{number}").observe(1)
    assert measured_versions(state.metrics) == {"v2", "v3", "v4"}


def measured_versions(metrics: Metrics) -> set[str]:
    return {sample.labels["model"] for family in metrics.stage_seconds.collect() for sample in family.samples}
