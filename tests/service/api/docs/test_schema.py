"""Schemathesis on the whole OpenAPI document: no 5xx, no undocumented response, nothing that hangs.

A real server on a real port, with two models, a pool and a finished run, so that some ids exist. Schemathesis runs in a
separate process; `schema_hooks.py` adds image and bundle files to the data that it generates.
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

# Time limit of each response in seconds.
TIME_LIMIT_S = 20
# Probability that an id is an existing one.
KNOWN_PROBABILITY = 0.6
# Existing ids by parameter.
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
        # It would expect requests with undocumented headers to be rejected.
        "allow-extra-parameters": False,
    },
    "phases": {"stateful": {"enabled": False}},
    "checks": {
        # 501, 503 and 504 are expected where the document lists them.
        "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", 501, 503, 504]},
        "max_response_time": TIME_LIMIT_S,
        # Every request has a key; `test_auth.py` sends each call without one.
        "ignored_auth": {"enabled": False},
        # Well-formed data need not be an existing id or a valid image.
        "positive_data_acceptance": {"enabled": False},
    },
    "dictionaries": {name.replace(".", "-"): {"values": values} for name, values in KNOWN.items()},
    # Each starts a program.
    "operations": [
        {
            "include-path": path,
            "generation": {"max-examples": examples(5)},
            "phases": {"coverage": {"enabled": fuzzing()}},
        }
        for path in ("/v1/imports", "/v1/labels/export")
    ],
    "parameters": {name: {"dictionary": name.replace(".", "-"), "probability": KNOWN_PROBABILITY} for name in KNOWN},
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
        retrain_after_labels=0,
        min_labelled_images=2,
        # So that the worker below does not expire.
        heartbeat_s=3600,
    )
    with serving(settings) as server:
        state = server.state
        state.models.import_folder(write_bundle(tmp_path / "other", version=SECOND, colors=COLORS[::-1]))
        fill(state, labelled=8, val=8, unlabelled=8)
        with state.database.write() as session:
            session.merge(Worker(id="test:1", seen_at=utc_now(), can_train=True, pid=1, host="test"))
        state.runs.request_cancel(state.retrain_policy.start("manual").id)
        # The document is built on the first request. Schemathesis waits 10 s, and a busy machine may need more.
        assert server.request("GET", "/openapi.json").status == 200
        yield server


@pytest.mark.slow
@pytest.mark.timeout(1800 if fuzzing() else 300)
def test_every_response_is_documented_and_none_is_a_fault(
    served: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text(tomli_w.dumps(CONFIG))
    command = [sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", str(config), "run"]
    command += ["--header", f"X-API-Key: {TEST_KEY}"]
    with capture_logs() as lines:
        completed = subprocess.run(
            [*command, f"http://{served.address}/openapi.json"],
            capture_output=True,
            text=True,
            timeout=1700,
            check=False,
        )
    print(completed.stdout)  # noqa: T201 - shown by `pytest -s` and on failure
    assert completed.returncode == 0, completed.stderr
    assert served.request("GET", "/readyz").status == 200
    # A fault after a stream has started shows in the log only.
    assert [line for line in lines if line["log_level"] in ("error", "critical")] == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
