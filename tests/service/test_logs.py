"""Log lines on stderr, in a process that has configured logging."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from service.logs import _StderrLogger

PROGRAM = """
import logging, sys
import structlog
from service.logs import configure_logs
from service.settings import Settings

log = structlog.stdlib.get_logger("service_logger")

def fail(image: bytes) -> None:
    key = "SECRET" + str(len(image))
    raise ValueError("no such thing")

configure_logs(Settings(log_format=sys.argv[1], log_level="INFO"))
structlog.contextvars.bind_contextvars(request_id="abc")
log.debug("dropped")
log.info("logged", answer=42, text="two\\nlines")
logging.getLogger("library_logger").warning("by %s", "logging", extra={"more": 1})
for log_exception in (log.exception, logging.getLogger("library_logger").exception):
    try:
        fail(b"SECRET IMAGE")
    except ValueError:
        log_exception("failed")
"""


def output(log_format: str) -> str:
    process = subprocess.run([sys.executable, "-c", PROGRAM, log_format], capture_output=True, timeout=60, check=True)
    assert not process.stdout
    return process.stderr.decode()


def test_json_is_one_object_per_line_with_the_request_id() -> None:
    lines: list[dict[str, Any]] = [json.loads(line) for line in output("json").splitlines()]
    assert [(line["event"], line["logger"], line["level"]) for line in lines] == [
        ("logged", "service_logger", "info"),
        ("by logging", "library_logger", "warning"),
        ("failed", "service_logger", "error"),
        ("failed", "library_logger", "error"),
    ]
    assert {line["request_id"] for line in lines} == {"abc"}
    assert (lines[0]["answer"], lines[0]["text"], lines[1]["more"]) == (42, "two\nlines", 1)
    for line in lines[2:]:
        assert "ValueError: no such thing" in line["exception"]
        assert "in fail" in line["exception"]
    assert all(line["timestamp"].endswith("Z") for line in lines)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_tracebacks_contain_no_local_variables(log_format: str) -> None:
    """They may be images or keys; the console formatter shows them if rich is installed."""
    text = output(log_format)
    assert text.count("ValueError: no such thing") == 2
    assert text.count("request_id") >= 4
    assert "SECRET12" not in text
    assert "dropped" not in text


def test_write_error_of_the_log_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk:
        def write(self, _line: str) -> int:
            raise OSError("No space left on device")

    monkeypatch.setattr(sys, "stderr", FullDisk())
    _StderrLogger("service_logger").info("a line")
