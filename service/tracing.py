"""OpenTelemetry traces of requests and runs, exported by OTLP over HTTP.

The standard variables configure it (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, ...). Without them nothing of
OpenTelemetry is imported here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import structlog

log = structlog.stdlib.get_logger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
INSTALL = "install it with `uv pip install '.[otel]'`, or unset the OTEL_* variables"
# Longest wait for the collector at shutdown.
FLUSH_S = 3.0

Attributes = Mapping[str, str | int | list[str]]

_current: ContextVar[Trace | None] = ContextVar("maskloop_trace", default=None)


class Trace:
    """An open span, to which child spans can be added. `ids` are for log lines."""

    def __init__(self, tracer: Any, span: Any) -> None:
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 - imported only if tracing is on

        self._tracer = tracer
        self.span = span
        self._context = set_span_in_context(span)
        context = span.get_span_context()
        self.ids = {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}

    def add_span(self, name: str, seconds: float, error: BaseException | None = None) -> None:
        """Add a child span of `seconds` that ended now."""
        if self.span.is_recording():
            now = time.time_ns()
            child = self._tracer.start_span(name, self._context, start_time=now - int(seconds * 1e9))
            if error is not None:
                from opentelemetry.trace import StatusCode  # noqa: PLC0415

                child.set_attribute("error.type", type(error).__qualname__)
                child.set_status(StatusCode.ERROR)
            child.end(now)


class Tracing:
    """Creates and exports traces. `provider` is for libraries that create spans, such as FastAPI."""

    def __init__(self, provider: Any) -> None:
        self.provider = provider
        self.tracer = provider.get_tracer("maskloop")
        self._processor: Any = None

    def start(self) -> None:
        """Start exporting, in a background thread."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        self._processor = BatchSpanProcessor(OTLPSpanExporter())
        self.provider.add_span_processor(self._processor)

    def current_span(self) -> Trace:
        """Return a library's open span, and make it current for this task."""
        from opentelemetry.trace import get_current_span  # noqa: PLC0415 - imported only if tracing is on

        trace = Trace(self.tracer, get_current_span())
        _current.set(trace)
        return trace

    def close(self) -> None:
        """Export the remaining spans, if the collector answers in time."""
        if self._processor is not None:
            flush = threading.Thread(target=self._processor.shutdown, name="trace-flush", daemon=True)
            flush.start()
            flush.join(FLUSH_S)


def open_tracing(variables: Mapping[str, str]) -> Tracing | None:
    """Open tracing if the OTEL_* `variables` configure it; otherwise, or on an error (logged), return None."""
    if not _is_configured(variables):
        return None
    protocol = next((variables[name] for name in PROTOCOLS if variables.get(name)), PROTOCOL)
    if protocol != PROTOCOL:
        log.warning("tracing is off: unsupported protocol", protocol=protocol, remedy=f"{PROTOCOLS[1]}={PROTOCOL}")
        return None
    try:
        return _open()
    except ImportError as error:
        log.warning("tracing is off: the extra `otel` is not installed", missing=error.name, remedy=INSTALL)
    except Exception as error:
        # A wrong variable must not prevent the start.
        log.warning("tracing is off: OpenTelemetry does not start", reason=f"{type(error).__name__}: {error}")
    return None


def current_trace() -> Trace | None:
    """Return the current trace."""
    return _current.get()


@contextmanager
def traced(tracing: Tracing | None, name: str, attributes: Attributes) -> Iterator[None]:
    """Trace the block as a root span, if tracing is on."""
    if tracing is None:
        yield
        return
    trace = Trace(tracing.tracer, tracing.tracer.start_span(name, attributes=dict(attributes)))
    token = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(token)
        trace.span.end()


@contextmanager
def span(name: str) -> Iterator[None]:
    """Trace the block as a child span of the current trace, if any."""
    trace, begin, error = current_trace(), time.perf_counter(), None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        if trace is not None:
            trace.add_span(name, time.perf_counter() - begin, error)


def _is_configured(variables: Mapping[str, str]) -> bool:
    exporters = {each.strip() for each in variables.get("OTEL_TRACES_EXPORTER", "").split(",")} - {""}
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporters == {"none"}:
        return False
    if exporters and "otlp" not in exporters:
        log.warning(
            "tracing is off: unsupported exporter", exporters=sorted(exporters), remedy="OTEL_TRACES_EXPORTER=otlp"
        )
        return False
    return bool(exporters) or any(variables.get(name) for name in ENDPOINTS)


def _open() -> Tracing:
    # The exporter's import reports a missing package at the start.
    from importlib.metadata import version  # noqa: PLC0415

    import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: F401, PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415

    resource = Resource.create({"service.version": version("maskloop")})
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "maskloop"}))
    return Tracing(TracerProvider(resource=resource, shutdown_on_exit=False))
