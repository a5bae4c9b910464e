"""OpenTelemetry: where a request or a run spent its time, told to a collector by OTLP over HTTP.

The standard variables set it up (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, ...), and
OpenTelemetry itself reads most of them. Where they ask for nothing, neither its SDK nor its exporter is imported.
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
INSTALL = "`uv pip install '.[otel]'` installs it; without the OTEL_* variables nobody needs it"
# What the end of the process waits for the last spans, should the collector not answer.
FLUSH_S = 3.0

Attributes = Mapping[str, str | int | list[str]]

_current: ContextVar[Trace | None] = ContextVar("maskloop_trace", default=None)


class Trace:
    """A span that is open, and the shorter ones under it.

    Attributes:
        ids: `trace_id` and `span_id`, as log lines should have them.
    """

    def __init__(self, tracer: Any, span: Any) -> None:
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 - who has a tracer has imported it

        self._tracer = tracer
        self._span = span
        self._inside = set_span_in_context(span)
        found = span.get_span_context()
        self.ids = {"trace_id": f"{found.trace_id:032x}", "span_id": f"{found.span_id:016x}"}

    def add_span(self, name: str, seconds: float, error: BaseException | None = None) -> None:
        """Something that is over now and took so long."""
        if self._span.is_recording():
            now = time.time_ns()
            child = self._tracer.start_span(name, self._inside, start_time=now - int(seconds * 1e9))
            if error is not None:
                _fail(child, error)
            child.end(now)

    def set_attributes(self, attributes: Attributes) -> None:
        """Add attributes."""
        self._span.set_attributes(attributes)

    def end(self) -> None:
        """It is over."""
        self._span.end()


class Tracing:
    """Makes traces and sends them. Built by `open_tracing`.

    Attributes:
        provider: OpenTelemetry's, for the libraries that make spans of their own: FastAPI makes that of a request.
    """

    def __init__(self, provider: Any) -> None:
        self.provider = provider
        self._tracer = provider.get_tracer("maskloop")
        self._sender: Any = None

    def start(self) -> None:
        """Begin to send, in a thread of its own."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - see below
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        self._sender = BatchSpanProcessor(OTLPSpanExporter())
        self.provider.add_span_processor(self._sender)

    def current_span(self) -> Trace:
        """The trace that a library has begun; what this task does from now on belongs to it."""
        from opentelemetry.trace import get_current_span  # noqa: PLC0415 - see `Trace`

        trace = Trace(self._tracer, get_current_span())
        _current.set(trace)
        return trace

    def begin(self, name: str, attributes: Attributes) -> Trace:
        """A trace from now on."""
        return Trace(self._tracer, self._tracer.start_span(name, attributes=dict(attributes)))

    def close(self) -> None:
        """Send what is left, if the collector answers soon."""
        if self._sender is not None:
            flush = threading.Thread(target=self._sender.shutdown, name="last traces", daemon=True)
            flush.start()
            flush.join(FLUSH_S)


def open_tracing(variables: Mapping[str, str]) -> Tracing | None:
    """Tracing as the environment asks for it. None: it does not, or cannot have it, which the log says then.

    Args:
        variables: Those of the environment that begin with OTEL_.
    """
    if not _asked_for(variables):
        return None
    protocol = next((variables[name] for name in PROTOCOLS if variables.get(name)), PROTOCOL)
    if protocol != PROTOCOL:
        log.warning("no traces: this protocol is not spoken", asked=protocol, remedy=f"{PROTOCOLS[1]}={PROTOCOL}")
        return None
    try:
        return _open()
    except ImportError as error:
        log.warning("no traces: the extra `otel` is not installed", missing=error.name, remedy=INSTALL)
    except Exception as error:
        # Whatever is wrong with a variable: masks are worth more than traces of them.
        log.warning("no traces: OpenTelemetry does not start", because=f"{type(error).__name__}: {error}")
    return None


def current_trace() -> Trace | None:
    """The trace that the work at hand belongs to."""
    return _current.get()


@contextmanager
def traced(tracing: Tracing | None, name: str, attributes: Attributes) -> Iterator[None]:
    """A trace of its own around a block, if there is tracing."""
    if tracing is None:
        yield
        return
    trace = tracing.begin(name, attributes)
    token = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(token)
        trace.end()


@contextmanager
def span(name: str) -> Iterator[None]:
    """A part of the current trace around a block, if there is one."""
    trace, begin = current_trace(), time.perf_counter()
    try:
        yield
    except BaseException as error:
        if trace is not None:
            trace.add_span(name, time.perf_counter() - begin, error)
        raise
    if trace is not None:
        trace.add_span(name, time.perf_counter() - begin)


def _asked_for(variables: Mapping[str, str]) -> bool:
    exporters = {each.strip() for each in variables.get("OTEL_TRACES_EXPORTER", "").split(",")} - {""}
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporters == {"none"}:
        return False
    if exporters and "otlp" not in exporters:
        log.warning("no traces: no such exporter here", asked=sorted(exporters), remedy="OTEL_TRACES_EXPORTER=otlp")
        return False
    return bool(exporters) or any(variables.get(name) for name in ENDPOINTS)


def _open() -> Tracing:
    # All of these only where they are asked for; the exporter before it is needed, to be told now if it is missing.
    from importlib.metadata import version  # noqa: PLC0415

    import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: F401, PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415

    resource = Resource.create({"service.version": version("maskloop")})
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "maskloop"}))
    return Tracing(TracerProvider(resource=resource, shutdown_on_exit=False))


def _fail(span: Any, error: BaseException) -> None:
    from opentelemetry.trace import StatusCode  # noqa: PLC0415 - see `Trace`

    span.set_attribute("error.type", type(error).__qualname__)
    span.set_status(StatusCode.ERROR)
