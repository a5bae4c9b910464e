"""The calls of the service that the scenario makes, as a client with a key of every scope."""

# H, W pixels

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import numpy.typing as npt
from PIL import Image

from demo import DemoError
from demo.terminal import Report

TIMEOUT_S = 120.0
POLL_S = 0.5
RUN_TIMEOUT_S = 3600.0


class Session:
    """Connection to a running service. Its methods raise `httpx.HTTPError`."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT_S, headers={"Authorization": f"Bearer {key}"})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """Get JSON."""
        return self._http.get(path, params=query).raise_for_status().json()

    def post(self, path: str, **query: Any) -> Any:
        """Send an empty request; return JSON. A worker that has just been started may not be known yet (503)."""
        deadline = time.monotonic() + TIMEOUT_S
        while (response := self._http.post(path, params=query)).status_code == 503 and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return response.raise_for_status().json()

    def contribute(self, image: Path) -> None:
        """Segment an image that the service may keep."""
        data, query = image.read_bytes(), {"contribute": "true"}
        self._http.post("/v1/segment", content=data, params=query).raise_for_status()

    def add(self, image: Path) -> str:
        """Add an image to the pool; return its id."""
        return str(self._http.post("/v1/images", content=image.read_bytes()).raise_for_status().json()["id"])

    def label(self, image: Path, mask: Path, split: str, group: str) -> None:
        """Add an image with a label to the pool; a label that it has already is replaced."""
        path, query = f"/v1/images/{self.add(image)}/mask", {"split": split, "group": group}
        self._http.put(path, content=mask.read_bytes(), params=query).raise_for_status()

    def segment(self, image: Path, version: str) -> npt.NDArray[np.uint8]:
        """Segment an image with a version; return class ids, uint8 [H, W]."""
        response = self._http.post("/v1/segment", content=image.read_bytes(), params={"model": version})
        return np.asarray(Image.open(io.BytesIO(response.raise_for_status().content)))

    def active_version(self) -> str:
        """Return the version that serves."""
        return str(self.get("/v1/models")["serving"])

    def finished_run(self, run_id: str, report: Report) -> dict[str, Any]:
        """Wait for the verdict of a run and return it. Raises DemoError if it ends without one."""
        run: dict[str, Any] = {}

        def is_over() -> bool:
            run.update(self.get(f"/v1/runs/{run_id}"))
            if run["steps"]:
                report(run["step"], run["steps"], str(run["phase"]))
            return run["status"] not in {"queued", "running"}

        wait_until(is_over, f"run {run_id}", RUN_TIMEOUT_S)
        if run["status"] != "judged":
            raise DemoError(f"run {run_id} ended as {run['status']}: {run['error']}")
        return run

    def release_of(self, run_id: str) -> dict[str, Any]:
        """Get the release of a run's candidate, with its traffic."""
        (release,) = self.get("/v1/releases", run_id=run_id)["releases"]
        return dict(self.get(f"/v1/releases/{release['id']}"))


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float) -> None:
    """Poll a condition. Raises DemoError after the timeout."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise DemoError(f"{what} took longer than {timeout_s:.0f} s: see the logs in the output folder")
        time.sleep(POLL_S)
