"""Clients that segment photographs all the time, and count answers and failures."""

from __future__ import annotations

import io
import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx
from PIL import Image

TIMEOUT_S = 60.0
ENLARGED = 3
"""Every tenth photograph is enlarged by this factor, to 1440x1080 pixels."""
EVERY = 10


@dataclass(frozen=True, slots=True)
class Answer:
    """A request that has ended."""

    at: float
    """Time of `time.monotonic`, in seconds."""
    version: str | None
    """The model that answered; None: the request failed."""


class Traffic:
    """Context manager whose thread sends photographs in turn, one of ten of them large."""

    def __init__(self, url: str, images: Sequence[Path], pause_s: float) -> None:
        self.answers: list[Answer] = []
        self._url, self._pause_s = url, pause_s
        self._images = [
            enlarged(path) if number % EVERY == 0 else path.read_bytes() for number, path in enumerate(images)
        ]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, name="traffic", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def failed(self) -> int:
        """Requests that failed."""
        return sum(answer.version is None for answer in self.answers)

    def answered(self, version: str) -> list[Answer]:
        """Requests that a version answered."""
        return [answer for answer in self.answers if answer.version == version]

    def _send(self) -> None:
        with httpx.Client(base_url=self._url, timeout=TIMEOUT_S) as http:
            for image in itertools.cycle(self._images):
                if self._stop.is_set():
                    return
                try:
                    response = http.post("/v1/segment", content=image).raise_for_status()
                    version: str | None = response.headers["X-Model-Version"]
                except httpx.HTTPError:
                    version = None
                self.answers.append(Answer(time.monotonic(), version))
                self._stop.wait(self._pause_s)


def enlarged(file: Path) -> bytes:
    """Enlarge a photograph, as JPEG."""
    picture, buffer = Image.open(file), io.BytesIO()
    picture.resize((ENLARGED * picture.width, ENLARGED * picture.height)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
