"""How many requests a caller may still send: a bucket for each, which fills steadily (GCRA, by `throttled-py`).

An address has another for keys that are none. Whoever has a valid key is let in from there all the same: many people
may share an address, and one of them guessing must not shut the others out.

Each process counts by itself: behind a balancer, N replicas let N times as many through.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

from service.errors import RateLimited
from service.keys.caller import Caller

WINDOW_S = 60
# Buckets in memory. The one that was not used for longest goes first: it is the one most likely to be full again.
MOST_CALLERS = 100_000


@dataclass(frozen=True, slots=True)
class Quota:
    """What a caller has left.

    Attributes:
        limit: Requests in a minute.
        remaining: Requests that may follow at once.
        reset_s: Seconds until all of `limit` may follow at once.
    """

    limit: int
    remaining: int
    reset_s: int

    def headers(self) -> dict[str, str]:
        """The fields of draft-ietf-httpapi-ratelimit-headers-10."""
        return {
            "RateLimit-Policy": f'"minute";q={self.limit};w={WINDOW_S}',
            "RateLimit": f'"minute";r={self.remaining};t={self.reset_s}',
        }


class TooMany(RateLimited):
    """The error, with what there is to say about it in headers."""

    def __init__(self, message: str, quota: Quota, *, retry_after_s: int) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.quota = quota


class RateLimits:
    """The buckets of one process. Failures have a store of their own: by guessing nobody empties a caller's bucket."""

    def __init__(self) -> None:
        self._requests = _Buckets("minute")
        self._failures = _Buckets("failures")

    def take(self, caller: Caller) -> Quota | None:
        """Count one request; None for a caller who may send any number.

        Raises:
            TooMany: There is none left.
        """
        if not caller.rate_per_minute:
            return None
        quota, wait_s = self._requests.take(caller.rate_per_minute, caller.id)
        if not wait_s:
            return quota
        raise TooMany(
            f"{quota.limit} requests a minute are allowed: try again in {wait_s} s.", quota, retry_after_s=wait_s
        )

    def fail(self, address: str, per_minute: int) -> None:
        """Count one key that was none; 0: any number may follow.

        Raises:
            TooMany: So many have come from this address.
        """
        if not per_minute:
            return
        quota, wait_s = self._failures.take(per_minute, address)
        if wait_s:
            raise TooMany(
                f"This key is not valid, nor were {quota.limit} others from this address in a minute: try again in "
                f"{wait_s} s, with another.",
                quota,
                retry_after_s=wait_s,
            )


class _Buckets:
    """Those of one purpose, with a limit to how many there are."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._limiter = cache(self._make_limiter)
        self._store: Any = None

    def take(self, per_minute: int, key: str) -> tuple[Quota, int]:
        """What is left, and how many seconds to wait where it was nothing."""
        result = self._limiter(per_minute).limit(key)
        state = result.state
        quota = Quota(per_minute, state.remaining, math.ceil(state.reset_after))
        return quota, max(1, math.ceil(state.retry_after)) if result.limited else 0

    def _make_limiter(self, per_minute: int) -> Any:
        # Imported where there is a limit at all.
        from throttled import MemoryStore, RateLimiterType, Throttled, per_min  # noqa: PLC0415

        if self._store is None:
            self._store = MemoryStore(options={"MAX_SIZE": MOST_CALLERS})
        # Buckets of another rate are others: their times mean nothing in this one.
        prefix = f"{self._name}-{per_minute}"
        using = RateLimiterType.GCRA.value
        return Throttled(using=using, quota=per_min(per_minute), store=self._store, key_prefix=prefix)
