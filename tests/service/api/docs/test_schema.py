"""Schemathesis over the whole OpenAPI document: no 5xx, no answer that the document does not name, nothing that hangs.

A real server on a real port, with two models, a pool and a run that is over, so that ids lead somewhere. Schemathesis
is a process of its own; what it sends beside its own inventions is in `schema_hooks.py`.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from pydantic import SecretStr
from structlog.testing import capture_logs

from service.settings import Settings
from service.storage.tables import Worker, utc_now
from tests.service.api.v2.conftest import FIRST, SECOND, Server, serving
from tests.service.conftest import TEST_KEY
from tests.service.fuzzing import examples, fuzzing
from tests.service.runs.conftest import fill
from tests.service.tiny_bundle import COLORS, write_bundle

# Seconds in which each answer has to be there.
TIME_LIMIT_S = 20
# How often an id is one that there is.
OFTEN = 0.6
# What an id may be, by its place.
KNOWN = {"path.version": [FIRST, SECOND, "1", "2"], "path.model": ["seg", "tiny"], "query.model": [FIRST, SECOND]}

CONFIG: dict[str, Any] = {
    "request-timeout": TIME_LIMIT_S,
    "max-stream-events": 50,
    "continue-on-failure": True,
    "hooks": "tests.service.api.docs.schema_hooks",
    "generation": {
        "max-examples": examples(20),
        "deterministic": not fuzzing(),
        "with-security-parameters": False,
        # It would have a request refused for a header that the document does not name, which anybody may send.
        "allow-extra-parameters": False,
    },
    "phases": {"stateful": {"enabled": False}},
    "checks": {
        # 501 and 504 are answers, and 503 is one where the document names it.
        "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", 501, 503, 504]},
        "max_response_time": TIME_LIMIT_S,
        # Every request has a key; `test_auth.py` sends each call without one.
        "ignored_auth": {"enabled": False},
        # What is well-formed is not yet the id of something, or a picture.
        "positive_data_acceptance": {"enabled": False},
    },
    "dictionaries": {name.replace(".", "-"): {"values": values} for name, values in KNOWN.items()},
    "parameters": {name: {"dictionary": name.replace(".", "-"), "probability": OFTEN} for name in KNOWN},
}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Server]:
    settings = Settings(
        data_dir=tmp_path / "data",
        api_key=SecretStr(TEST_KEY),
        model=str(write_bundle(tmp_path / "bundle", version=FIRST)),
        model_poll_s=0.05,
        inference_threads=1,
        retrain_after_images=1_000_000,
        min_labelled_images=2,
        # The worker below stays alive.
        heartbeat_s=3600,
    )
    with serving(settings) as server:
        state = server.state
        state.models.import_folder(write_bundle(tmp_path / "other", version=SECOND, colors=COLORS[::-1]))
        fill(state, labelled=8, val=8, unlabelled=8)
        with state.database.write() as session:
            session.merge(Worker(id="test:1", seen_at=utc_now(), can_train=True, pid=1, host="test"))
        state.runs.request_cancel(state.retrain_policy.start("manual").id)
        # Made when it is asked for first; Schemathesis waits for 10 s, and a busy machine may need more.
        assert server.ask("GET", "/openapi.json").status == 200
        yield server


@pytest.mark.slow
@pytest.mark.timeout(1800 if fuzzing() else 300)
def test_no_fault_and_no_answer_that_is_not_documented(
    served: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text(tomli_w.dumps(CONFIG))
    command = [sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", str(config), "run"]
    command += ["--header", f"X-API-Key: {TEST_KEY}"]
    with capture_logs() as lines:
        seen = subprocess.run(
            [*command, f"http://{served.address}/openapi.json"],
            capture_output=True,
            text=True,
            timeout=1700,
            check=False,
        )
    print(seen.stdout)  # noqa: T201 - what `pytest -s`, and a failure, show
    assert seen.returncode == 0, seen.stderr
    assert served.ask("GET", "/readyz").status == 200
    # A stream that has begun tells of no fault any more, but the log does.
    assert [line for line in lines if line["log_level"] in ("error", "critical")] == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
