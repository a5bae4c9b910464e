"""An OpenTelemetry collector for tests: receives OTLP over HTTP in protobuf, on a real port, and keeps the spans."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True, slots=True)
class Span:
    """A span and the attributes of its resource."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    status: int
    seconds: float
    begin_ns: int
    end_ns: int
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Receiver:
    """The spans received so far."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.spans: list[Span] = []

    def named(self, name: str) -> list[Span]:
        """Return all spans of a name."""
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Span:
        """Return the only span of a name."""
        (span,) = self.named(name)
        return span

    def add(self, body: bytes) -> None:
        """Decode an export request and keep its spans."""
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _values(group.resource.attributes)
            for spans in group.scope_spans:
                self.spans += [_span(span, resource) for span in spans.spans]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver during the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            valid = self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
            if valid:
                receiver.add(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            response = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200 if valid else 400)
            self.send_header("Content-Length", str(len(response)))
            self.end_headers()
            self.wfile.write(response)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = Receiver(server.server_port)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


def _span(span: Any, resource: dict[str, Any]) -> Span:
    return Span(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=span.kind,
        status=span.status.code,
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        begin_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_values(span.attributes),
        resource=resource,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {attribute.key: _value(attribute.value) for attribute in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind)
