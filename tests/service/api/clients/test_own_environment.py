"""Clients with many dependencies of their own: kserve's, locust, and Triton's perf_analyzer.

`make clients` installs them in .venv/clients; CLIENTS_ENVIRONMENT sets another folder, PERF_ANALYZER another program.
"""

from __future__ import annotations

import base64
import csv
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.service.tiny_bundle import COLORS, nearest, picture

ENVIRONMENT = Path(os.environ.get("CLIENTS_ENVIRONMENT", Path(sys.prefix) / "clients"))
PERF_ANALYZER = Path(os.environ.get("PERF_ANALYZER", ENVIRONMENT / "bin/perf_analyzer"))
HERE = Path(__file__).parent

pytestmark = pytest.mark.slow
installed = pytest.mark.skipif(not (ENVIRONMENT / "bin/locust").exists(), reason="run `make clients` first")


@installed
def test_kserve(url: str) -> None:
    command = [str(ENVIRONMENT / "bin/python"), str(HERE / "kserve_client.py"), url]
    image = json.dumps(picture().tolist())
    ended = subprocess.run(command, input=image, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert [found[name] for name in ("live", "ready", "model")] == [True] * 3
    mask = nearest(picture(), COLORS)
    for binary in (False, True):
        np.testing.assert_array_equal(np.array(found[f"mask, binary {binary}"]).reshape(mask.shape), mask)
    assert "no model 'nothing'" in found["error"]


@installed
def test_locust(url: str, photo: Path, tmp_path: Path) -> None:
    options = ["--headless", "--users", "4", "--spawn-rate", "4", "--run-time", "8s", "--host", url]
    options += ["--csv", str(tmp_path / "result"), "--only-summary", "-f", str(HERE / "locustfile.py")]
    environment = os.environ | {"PHOTO": str(photo)}
    ended = subprocess.run(
        [str(ENVIRONMENT / "bin/locust"), *options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    with (tmp_path / "result_stats.csv").open(newline="") as file:
        total = next(row for row in csv.DictReader(file) if row["Name"] == "Aggregated")
    assert int(total["Failure Count"]) == 0
    assert int(total["Request Count"]) >= 4


@pytest.mark.skipif(not PERF_ANALYZER.exists(), reason="run `make clients` first; it needs glibc 2.38")
@pytest.mark.parametrize(("model", "shape"), [("seg_bytes", "image_bytes:1"), ("seg", "image:30,40,3")])
def test_perf_analyzer(url: str, photo: Path, tmp_path: Path, model: str, shape: str) -> None:
    file = photo.read_bytes()
    element = {"b64": base64.b64encode(struct.pack("<I", len(file)) + file).decode(), "shape": [1]}
    given = tmp_path / "input.json"
    given.write_text(json.dumps({"data": [{"image_bytes": element}]}))
    options = ["-m", model, "-u", url.removeprefix("http://"), "--shape", shape, "--request-count", "10"]
    options += ["--input-data", str(given)] if model == "seg_bytes" else []
    ended = subprocess.run([str(PERF_ANALYZER), *options], capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    # The second is from our statistics.
    assert "Request count: 10" in ended.stdout
    assert "Successful request count: 10" in ended.stdout
