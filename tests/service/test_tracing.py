"""Traces, as an OTLP collector receives them."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from structlog.testing import capture_logs

from service import tracing
from service.metrics import Metrics
from service.segmentation.admission.request_context import RequestContext
from service.settings import open_telemetry_variables
from service.tracing import Tracing, open_tracing, span, traced
from tests.service.conftest import MakeSettings, encoded, serve
from tests.service.otlp_receiver import Receiver, receiving
from tests.service.tiny_bundle import picture

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
STAGES = ("decode", "queue", "infer", "encode")


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiving() as started:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", started.endpoint)
        yield started


def start_tracing() -> Tracing:
    opened = open_tracing(open_telemetry_variables())
    assert opened is not None
    opened.start()
    return opened


def test_request_is_a_span_and_its_stages_are_child_spans(receiver: Receiver, make_settings: MakeSettings) -> None:
    with serve(make_settings()) as client:
        headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "X-Request-Id": "mine"}
        url = "/v1/segment?model=20260101T000000-aaaaaaaa"
        assert client.post(url, content=encoded(picture()), headers=headers).status_code == 200
    request = receiver.one("POST /v1/segment")
    assert (request.trace_id, request.parent_id) == (TRACE, SPAN)
    assert (request.kind, request.status) == (Span.SPAN_KIND_SERVER, Status.STATUS_CODE_UNSET)
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/segment",
        "http.response.status_code": 200,
        "http.request.header.x-request-id": ["mine"],
        "maskloop.model.version": "20260101T000000-aaaaaaaa",
        "url.scheme": "http",
        "url.path": "/v1/segment",
        "url.query": "model=20260101T000000-aaaaaaaa",
        "network.protocol.version": "1.1",
        "server.address": "testserver",
        "server.port": 80,
    }
    assert request.resource["service.name"] == "maskloop"
    assert request.resource["service.version"]
    stages = [receiver.one(name) for name in STAGES]
    assert {stage.parent_id for stage in stages} == {request.span_id}
    assert {stage.trace_id for stage in stages} == {TRACE}
    # One after the other, within the request. A stage is recorded when it ends and its begin is calculated from its
    # duration, so that on a busy machine only the ends are exact. Durations and times come from two clocks, which may
    # differ a little.
    ends = [*(stage.end_ns for stage in stages), request.end_ns]
    assert all(earlier <= later for earlier, later in itertools.pairwise(ends))
    assert all(stage.begin_ns > request.begin_ns - 2_000_000 for stage in stages)
    assert 0 < sum(stage.seconds for stage in stages) < request.seconds + 0.01
    # The readiness probes are not traced.
    assert {span.name for span in receiver.spans} == {"POST /v1/segment", *STAGES}


def test_error_is_recorded_on_the_span_in_which_it_occurred(receiver: Receiver, make_settings: MakeSettings) -> None:
    with serve(make_settings()) as client:
        app = client.app
        assert isinstance(app, FastAPI)

        @app.get("/v1/broken")
        def broken() -> None:
            raise RuntimeError("the password is 1234")

        assert client.get("/v1/broken").status_code == 500
        assert client.get("/nowhere").status_code == 404
        assert client.post("/v1/segment", content=encoded(picture())[:200]).status_code == 400
        client.request("BREW", "/v1/images")
    unexpected = receiver.one("GET /v1/broken")
    assert unexpected.status == Status.STATUS_CODE_ERROR
    assert unexpected.attributes["error.type"] == "RuntimeError"
    assert "1234" not in str(receiver.spans)
    # Errors of the client are no errors of the server span; the span of the stage has the type.
    for name in ("GET", "POST /v1/segment", "HTTP /v1/images"):
        assert receiver.one(name).status == Status.STATUS_CODE_UNSET
    assert receiver.one("decode").attributes["error.type"] == "ImageUnreadable"
    assert receiver.one("HTTP /v1/images").attributes["http.request.method"] == "_OTHER"


def test_sampler_and_service_name_of_the_environment_apply(
    receiver: Receiver, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "masks")
    with serve(make_settings()) as client:
        client.get("/v1/images")
        client.get("/v1/models", headers={"traceparent": f"00-{TRACE}-{SPAN}-00"})
        client.get("/v1/runs", headers={"traceparent": f"00-{TRACE}-{SPAN}-01"})
        client.get("/v1/runs/none", headers={"traceparent": "rubbish"})
    assert [span.name for span in receiver.spans] == ["GET /v1/runs"]
    assert receiver.spans[0].resource["service.name"] == "masks"


def test_image_of_a_batch_stays_in_the_trace_of_its_request(receiver: Receiver) -> None:
    """A batch runs in its own task, whose context is that of its first request."""
    opened = start_tracing()
    with traced(opened, "first", {}):
        first = RequestContext(Metrics())
        with traced(opened, "second", {}):
            second = RequestContext(Metrics())
            for context in (first, second):
                context.record_stage("infer", 0.25)
    opened.close()
    assert {span.parent_id for span in receiver.named("infer")} == {
        receiver.one(name).span_id for name in ("first", "second")
    }
    assert [round(span.seconds, 6) for span in receiver.named("infer")] == [0.25, 0.25]


def test_failed_block_has_its_error_type_on_the_span(receiver: Receiver) -> None:
    opened = start_tracing()
    with pytest.raises(KeyError), traced(opened, "run", {"maskloop.run.id": "1"}), span("train"):
        raise KeyError
    with span("alone"):
        pass
    opened.close()
    assert receiver.one("train").parent_id == receiver.one("run").span_id
    assert receiver.one("train").attributes == {"error.type": "KeyError"}
    assert not receiver.named("alone")


def test_sdk_and_exporter_are_not_imported_without_variables() -> None:
    program = (
        "import sys, service.api.app, service.worker.worker_process\n"
        "from service.settings import open_telemetry_variables\n"
        "from service.tracing import open_tracing\n"
        "assert open_tracing(open_telemetry_variables()) is None\n"
        "sys.exit(any(name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter')) for name in sys.modules))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120, env=environment)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_SERVICE_NAME": "masks"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_tracing_is_off_without_a_warning_unless_configured(variables: dict[str, str]) -> None:
    with capture_logs() as entries:
        assert open_tracing(variables) is None
    assert entries == []


@pytest.mark.parametrize(
    ("variables", "remedy"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER=otlp"),
    ],
)
def test_unsupported_settings_log_a_warning_with_a_remedy(variables: dict[str, str], remedy: str) -> None:
    with capture_logs() as entries:
        assert open_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", **variables}) is None
    assert [(entry["log_level"], entry["remedy"]) for entry in entries] == [("warning", remedy)]


def test_missing_extra_logs_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with capture_logs() as entries:
        assert open_tracing({"OTEL_TRACES_EXPORTER": "otlp"}) is None
    (entry,) = entries
    assert "otel" in entry["event"]
    assert "'.[otel]'" in entry["remedy"]


def test_unresponsive_collector_fails_no_request_and_delays_shutdown_little(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "FLUSH_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with serve(make_settings()) as client:
            assert client.post("/v1/segment", content=encoded(picture())).status_code == 200
            begin = time.monotonic()
        assert time.monotonic() - begin < 8
