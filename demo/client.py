"""A client of the service, as anybody might write one, and one that keeps asking while things change."""

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
from demo.show import Report

TIMEOUT_S = 60.0
# A client that leaves the cores to the training as well.
PAUSE_S = 0.2


class Client:
    """What the demonstration asks the service for. Every error is an `httpx.HTTPError`."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def segment(self, image: Path, accept: str = "image/png", **query: str) -> bytes:
        """The answer for an image file, as `accept` wants it."""
        headers = {"Accept": accept}
        answer = self._http.post("/v1/segment", content=image.read_bytes(), headers=headers, params=query)
        return answer.raise_for_status().content

    def mask(self, image: Path) -> Mask:
        """The class ids of an image file, uint8 [H, W]."""
        return np.asarray(Image.open(io.BytesIO(self.segment(image))))

    def masks(self, images: Iterable[Path], report: Report) -> list[Mask]:
        """The masks of many, one after the other."""
        files = list(images)
        found = []
        for number, image in enumerate(files, 1):
            found.append(self.mask(image))
            report(number, len(files))
        return found

    def add(self, image: Path) -> str:
        """Send an image to the pool; its id."""
        answer = self._http.post("/v1/images", content=image.read_bytes()).raise_for_status()
        return str(answer.json()["id"])

    def label(self, image: Path, mask: Path, split: str) -> None:
        """Send an image with its mask."""
        path = f"/v1/images/{self.add(image)}/mask"
        self._http.put(path, content=mask.read_bytes(), params={"split": split}).raise_for_status()

    def runs(self) -> list[dict[str, Any]]:
        """The runs, newest first."""
        found: list[dict[str, Any]] = self._http.get("/v1/runs").raise_for_status().json()["runs"]
        return found

    def upload(self, packed: bytes) -> str:
        """Bring a zipped bundle; its version."""
        return str(self._http.post("/v1/models", content=packed).raise_for_status().json()["version"])


@dataclass(slots=True)
class Tally:
    """What came of the questions."""

    answered: int = 0
    failures: list[str] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    """Answers by model version, in the order in which the versions appeared."""


class Asker:
    """A thread that segments one image again and again, for as long as the block runs."""

    def __init__(self, url: str, image: bytes, pause_s: float = PAUSE_S) -> None:
        self.tally = Tally()
        self._url = url
        self._image = image
        self._pause_s = pause_s
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="asker", daemon=True)

    def __enter__(self) -> Asker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=TIMEOUT_S) as http:
            while not self._ending.is_set():
                try:
                    answer = http.post("/v1/segment", content=self._image).raise_for_status()
                    version = answer.headers["X-Model-Version"]
                    self.tally.answered += 1
                    self.tally.versions[version] = self.tally.versions.get(version, 0) + 1
                except httpx.HTTPError as error:
                    self.tally.failures.append(repr(error))
                self._ending.wait(self._pause_s)
