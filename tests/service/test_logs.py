"""What stands on stderr, in a process that has configured it."""

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

log = structlog.stdlib.get_logger("ours")

def fail(image: bytes) -> None:
    key = "SECRET" + str(len(image))
    raise ValueError("no such thing")

configure_logs(Settings(log_format=sys.argv[1], log_level="INFO"))
structlog.contextvars.bind_contextvars(request_id="abc")
log.debug("not told")
log.info("told", answer=42, text="two\\nlines")
logging.getLogger("theirs").warning("by %s", "logging", extra={"more": 1})
for tell in (log.exception, logging.getLogger("theirs").exception):
    try:
        fail(b"SECRET IMAGE")
    except ValueError:
        tell("failed")
"""


def output(log_format: str) -> str:
    done = subprocess.run([sys.executable, "-c", PROGRAM, log_format], capture_output=True, timeout=60, check=True)
    assert not done.stdout
    return done.stderr.decode()


def test_json_is_an_object_a_line_with_the_name_of_the_request() -> None:
    lines: list[dict[str, Any]] = [json.loads(line) for line in output("json").splitlines()]
    assert [(line["event"], line["logger"], line["level"]) for line in lines] == [
        ("told", "ours", "info"),
        ("by logging", "theirs", "warning"),
        ("failed", "ours", "error"),
        ("failed", "theirs", "error"),
    ]
    assert {line["request_id"] for line in lines} == {"abc"}
    assert (lines[0]["answer"], lines[0]["text"], lines[1]["more"]) == (42, "two\nlines", 1)
    for line in lines[2:]:
        assert "ValueError: no such thing" in line["exception"]
        assert "in fail" in line["exception"]
    assert all(line["timestamp"].endswith("Z") for line in lines)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_tracebacks_tell_no_local_variables(log_format: str) -> None:
    """Images and keys are among them, and the console's formatter shows them where rich is installed."""
    text = output(log_format)
    assert text.count("ValueError: no such thing") == 2
    assert text.count("request_id") >= 4
    assert "SECRET12" not in text
    assert "not told" not in text


def test_a_log_that_cannot_be_written_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, _line: str) -> int:
            raise OSError("No space left on device")

    monkeypatch.setattr(sys, "stderr", Full())
    _StderrLogger("ours").info("a line")
