"""HTTP clients that use the service the whole time: upload, label, delete, segment, and list images."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import httpx
import numpy as np

from tests.chaos.calls import TIMEOUT_S, Calls
from tests.chaos.installation import RETRAIN_AFTER_IMAGES, Installation
from tests.chaos.ledger import Ledger, Operation, Outcome, digest
from tests.chaos.pictures import random_image, random_mask, read_mask

UPLOADS_PER_ROUND = RETRAIN_AFTER_IMAGES * 2 - 2
"""One run becomes due in each round, and no second one."""
LABELS, VALIDATION_LABELS = 24, 4
"""Labels by these clients at a time: more would make the runs longer."""
SAME_BYTES = 3
"""Requests that send the same new image at once."""
BATCH = 3
PAGE = 100

UPLOAD, DELETE = Operation("upload"), Operation("delete")


class Clients:
    """The threads, which `resume` lets work until `pause`."""

    def __init__(self, installation: Installation, calls: Calls, ledger: Ledger, seed: int) -> None:
        self._installation = installation
        self._calls = calls
        self._ledger = ledger
        self._seeds = np.random.SeedSequence(seed)
        self._fresh: deque[str] = deque()
        self._labelled: deque[str] = deque()
        self._uploads = 0
        self._may_work = threading.Event()
        self._ending = threading.Event()
        self._busy: set[str] = set()
        self._changed = threading.Condition()
        self.violations: list[str] = []
        works: list[tuple[str, Callable[[httpx.Client, np.random.Generator], None], float]] = [
            ("upload", self._upload, 0.3),
            ("label", self._label_or_delete, 0.4),
            ("segment", self._segment, 0.15),
            ("list", self._list, 2.0),
        ]
        self._threads = [threading.Thread(target=self._run, args=work, name=work[0], daemon=True) for work in works]

    def start(self) -> None:
        """Start the threads, paused."""
        for thread in self._threads:
            thread.start()

    def resume(self) -> None:
        """Let the clients work for a round."""
        self._uploads = 0
        self._may_work.set()

    def pause(self) -> None:
        """Wait until all requests are answered, and send no more."""
        self._may_work.clear()
        with self._changed:
            self._changed.wait_for(lambda: not self._busy, timeout=2 * TIMEOUT_S)

    def stop(self) -> None:
        """End the threads."""
        self._ending.set()
        self._may_work.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def upload(self, http: httpx.Client, image_id: str, data: bytes) -> int | None:
        """Send an image; return the status if it was accepted."""
        self._ledger.begin(image_id, UPLOAD)
        response = self._calls.send(http, "upload", "POST", "/v1/images", content=data)
        accepted = response is not None and response.status_code in (200, 201)
        if response is not None and accepted and response.json()["id"] != image_id:
            self.violations.append(f"image {image_id} was stored as {response.json()['id']}")
        self._ledger.end(image_id, UPLOAD, "done" if accepted else "unknown")
        return response.status_code if response is not None else None

    def label(
        self, http: httpx.Client, image_id: str, ids: bytes, png: bytes, split: Literal["labelled", "val"]
    ) -> bool:
        """Send a label; return whether it was accepted."""
        operation = Operation("label", digest(ids))
        path = f"/v1/images/{image_id}/mask"
        return self._change(http, operation, image_id, "PUT", path, content=png, params={"split": split}) == "done"

    def _change(
        self, http: httpx.Client, operation: Operation, image_id: str, method: str, path: str, **more: object
    ) -> Outcome:
        self._ledger.begin(image_id, operation)
        response = self._calls.send(http, operation.name, method, path, **more)
        outcome: Outcome = "unknown" if response is None else "missing" if response.status_code == 404 else "done"
        self._ledger.end(image_id, operation, outcome)
        return outcome

    def _run(self, name: str, work: Callable[[httpx.Client, np.random.Generator], None], pause_s: float) -> None:
        rng = np.random.default_rng(self._seeds.spawn(1)[0])
        with self._installation.client(TIMEOUT_S) as http:
            while not self._ending.wait(pause_s):
                with self._changed:
                    self._busy.add(name)
                try:
                    if self._may_work.is_set() and not self._ending.is_set():
                        work(http, rng)
                except Exception as error:
                    self.violations.append(f"the client {name} failed: {error!r}")
                finally:
                    with self._changed:
                        self._busy.discard(name)
                        self._changed.notify_all()

    def _upload(self, http: httpx.Client, rng: np.random.Generator) -> None:
        if self._uploads >= UPLOADS_PER_ROUND:
            return
        self._uploads += 1
        image_id, data = random_image(rng)
        kind = rng.random()
        if kind < 0.2:
            self._upload_batch(http, {image_id: data} | dict(random_image(rng) for _ in range(BATCH - 1)))
        elif kind < 0.5:
            with ThreadPoolExecutor(SAME_BYTES) as pool:
                statuses = list(pool.map(lambda _: self.upload(http, image_id, data), range(SAME_BYTES)))
            if statuses.count(201) > 1 or (statuses.count(200) == SAME_BYTES):
                self.violations.append(f"image {image_id}: sent {SAME_BYTES} times at once, answered {statuses}")
        else:
            status = self.upload(http, image_id, data)
            if status is None and rng.random() < 0.5:
                self.upload(http, image_id, data)
        self._fresh.append(image_id)

    def _upload_batch(self, http: httpx.Client, images: dict[str, bytes]) -> None:
        """Send images in one request, whose lines answer for each of them."""
        self._uploads += len(images) - 1
        for image_id in images:
            self._ledger.begin(image_id, UPLOAD)
        form = [("file", (image_id, data)) for image_id, data in images.items()]
        response = self._calls.send(http, "upload", "POST", "/v1/images/batch", files=form)
        lines = [json.loads(line) for line in response.text.splitlines()] if response is not None else []
        accepted = {line["filename"] for line in lines if line["status"] in (200, 201)}
        for image_id in images:
            self._ledger.end(image_id, UPLOAD, "done" if image_id in accepted else "unknown")
        self._calls.judge_lines(lines)

    def _label_or_delete(self, http: httpx.Client, rng: np.random.Generator) -> None:
        if len(self._labelled) > LABELS or (self._labelled and rng.random() < 0.2):
            self._delete(http, self._labelled.popleft())
        elif self._labelled and rng.random() < 0.4:
            self._labelled.rotate(1)
            self._label(http, rng, self._labelled[0])
        elif self._fresh:
            image_id = self._fresh.popleft()
            if rng.random() < 0.3:
                self._delete(http, image_id)
            elif self._label(http, rng, image_id):
                self._labelled.append(image_id)

    def _label(self, http: httpx.Client, rng: np.random.Generator, image_id: str) -> bool:
        mask, png = random_mask(rng)
        split: Literal["labelled", "val"] = "val" if rng.random() < VALIDATION_LABELS / LABELS else "labelled"
        return self.label(http, image_id, mask.tobytes(), png, split)

    def _delete(self, http: httpx.Client, image_id: str) -> None:
        self._change(http, DELETE, image_id, "DELETE", f"/v1/images/{image_id}")

    def _segment(self, http: httpx.Client, rng: np.random.Generator) -> None:
        image_id, data = random_image(rng)
        contributes = self._uploads < UPLOADS_PER_ROUND and rng.random() < 0.05
        if contributes:
            self._uploads += 1
            self._ledger.begin(image_id, UPLOAD)
        params = {"contribute": "true"} if contributes else {}
        response = self._calls.send(http, "segment", "POST", "/v1/segment", content=data, params=params)
        kept = response is not None and response.headers.get("X-Image-Id") == image_id
        if contributes:
            self._ledger.end(image_id, UPLOAD, "done" if kept else "unknown")
        if response is not None and read_mask(response.content).shape != read_mask(random_mask(rng)[1]).shape:
            self.violations.append(f"a mask of the size {read_mask(response.content).shape} was returned")

    def _list(self, http: httpx.Client, rng: np.random.Generator) -> None:
        kept = self._ledger.kept()
        listed: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            params = {"limit": PAGE} | ({"cursor": cursor} if cursor else {})
            response = self._calls.send(http, "list", "GET", "/v1/images", params=params)
            if response is None:
                return
            page = response.json()
            listed += [image["id"] for image in page["images"]]
            cursor = page["next_cursor"]
        if len(listed) != len(set(listed)):
            self.violations.append("an image was listed twice")
        for image_id in self._ledger.unchanged(kept) - set(listed):
            self._ledger.lost(image_id, "it was not in a listing")
        if listed:
            self._read(http, listed[int(rng.integers(len(listed)))])

    def _read(self, http: httpx.Client, image_id: str) -> None:
        kept = self._ledger.kept()
        response = self._calls.send(http, "read", "GET", f"/v1/images/{image_id}/content")
        if response is None or image_id not in self._ledger.unchanged(kept):
            return
        if response.status_code == 404 or hashlib.sha256(response.content).hexdigest() != image_id:
            self._ledger.lost(image_id, f"its content was answered with {response.status_code}, or other bytes")
