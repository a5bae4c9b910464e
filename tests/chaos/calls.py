"""Requests to the service, and which answers its faults excuse."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

Excuse = Literal["no answer", "503", "507", "segment 503"]
"""What a fault may cause: a broken connection, or a refused change or listing; `segment 503` also a segmentation."""

API_DOWN: frozenset[Excuse] = frozenset({"no answer", "503", "segment 503"})
TIMEOUT_S = 60.0
"""Longer than any fault: a request without an answer was not carried out later."""
OPEN_END = float("inf")


@dataclass(slots=True)
class Disturbance:
    """A fault from its beginning until the service has recovered."""

    fault: str
    excuses: frozenset[Excuse]
    begin: float
    end: float = OPEN_END


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that was not answered with 2xx or 404."""

    kind: str
    outcome: str
    detail: str
    begin: float
    end: float


@dataclass(slots=True)
class Calls:
    """Counts of answers, failures, and the faults that excuse them; thread-safe."""

    answered: Counter[str] = field(default_factory=Counter)
    excused: Counter[str] = field(default_factory=Counter)
    disturbances: list[Disturbance] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def disturb(self, fault: str, excuses: frozenset[Excuse]) -> Disturbance:
        """Record that a fault begins."""
        disturbance = Disturbance(fault, excuses, time.monotonic())
        with self._lock:
            self.disturbances.append(disturbance)
        return disturbance

    def send(self, http: httpx.Client, kind: str, method: str, path: str, **more: Any) -> httpx.Response | None:
        """Send a request; return the answer if its status is 2xx or 404."""
        begin = time.monotonic()
        try:
            response = http.request(method, path, **more)
        except httpx.TransportError as error:
            self._fail(Failure(kind, "no answer", repr(error), begin, time.monotonic()))
            return None
        if not response.is_success and response.status_code != 404:
            detail = f"{response.status_code} {response.text[:300]}"
            self._fail(Failure(kind, str(response.status_code), detail, begin, time.monotonic()))
            return None
        with self._lock:
            self.answered[kind] += 1
        return response

    def judge_lines(self, lines: list[dict[str, Any]]) -> None:
        """Record what the lines of a batch refuse, as if each were an answer."""
        now = time.monotonic()
        for line in lines:
            if line["status"] >= 400:
                self._fail(Failure("upload", str(line["status"]), f"in a batch: {line}", now, now))

    def judge(self) -> list[str]:
        """Return the failures that no fault excuses, and forget all of them."""
        with self._lock:
            failures, self.failures = self.failures, []
            faults, self.disturbances = self.disturbances, []
        unexcused = [each for each in failures if not _is_excused(each, faults)]
        self.excused.update(each.outcome for each in failures if each not in unexcused)
        return [f"{each.kind}: {each.detail} (after {each.end - each.begin:.1f} s)" for each in unexcused]

    def _fail(self, failure: Failure) -> None:
        with self._lock:
            self.failures.append(failure)


def _is_excused(failure: Failure, faults: list[Disturbance]) -> bool:
    outcome = "segment 503" if (failure.kind, failure.outcome) == ("segment", "503") else failure.outcome
    return any(
        outcome in fault.excuses and failure.begin <= fault.end and fault.begin <= failure.end for fault in faults
    ) and not (failure.kind == "segment" and failure.outcome == "507")
