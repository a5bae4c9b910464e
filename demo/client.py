"""HTTP client of the service, and a thread that sends requests continuously."""

# H, W pixels

from __future__ import annotations

import io
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
from PIL import Image

from demo.dataset import Mask
from demo.terminal import Report

TIMEOUT_S = 60.0
# Leaves most CPU time to the training run.
PAUSE_S = 0.2


class Client:
    """HTTP client with an API key of every scope. Its methods raise `httpx.HTTPError`."""

    def __init__(self, url: str, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT_S, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def segment(self, image: Path, accept: str = "image/png", **query: str) -> bytes:
        """Segment an image file; return the response body in the format `accept`."""
        headers = {"Accept": accept}
        response = self._http.post("/v1/segment", content=image.read_bytes(), headers=headers, params=query)
        return response.raise_for_status().content

    def masks(self, images: Iterable[Path], report: Report) -> list[Mask]:
        """Segment image files one by one; return their class ids, uint8 [H, W] each."""
        files = list(images)
        masks = []
        for number, image in enumerate(files, 1):
            masks.append(np.asarray(Image.open(io.BytesIO(self.segment(image)))))
            report(number, len(files))
        return masks

    def add_image(self, image: Path) -> str:
        """Add an image to the pool and return its id."""
        response = self._http.post("/v1/images", content=image.read_bytes()).raise_for_status()
        return str(response.json()["id"])

    def add_labelled_image(self, image: Path, mask: Path, split: str) -> None:
        """Add an image with its mask to a split of the pool."""
        path = f"/v1/images/{self.add_image(image)}/mask"
        self._http.put(path, content=mask.read_bytes(), params={"split": split}).raise_for_status()

    def runs(self) -> list[dict[str, Any]]:
        """List the training runs, newest first."""
        runs: list[dict[str, Any]] = self._http.get("/v1/runs").raise_for_status().json()["runs"]
        return runs

    def upload_bundle(self, archive: Path) -> str:
        """Upload a zipped bundle and return its version."""
        response = self._http.post("/v1/models", content=archive.read_bytes()).raise_for_status()
        return str(response.json()["version"])


@dataclass(slots=True)
class RequestCounts:
    """Results of the requests of a `BackgroundClient`."""

    answered: int = 0
    failures: list[str] = field(default_factory=list)
    """One error text per failed request."""
    by_version: dict[str, int] = field(default_factory=dict)
    """Answered requests by model version, in the order of first appearance."""


class BackgroundClient:
    """Context manager whose thread segments the same image again and again."""

    def __init__(self, url: str, image: bytes, pause_s: float = PAUSE_S) -> None:
        self.counts = RequestCounts()
        self._url = url
        self._image = image
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send_requests, name="background client", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _send_requests(self) -> None:
        with httpx.Client(base_url=self._url, timeout=TIMEOUT_S) as http:
            while not self._stop.is_set():
                try:
                    response = http.post("/v1/segment", content=self._image).raise_for_status()
                    version = response.headers["X-Model-Version"]
                    self.counts.answered += 1
                    self.counts.by_version[version] = self.counts.by_version.get(version, 0) + 1
                except httpx.HTTPError as error:
                    self.counts.failures.append(repr(error))
                self._stop.wait(self._pause_s)
