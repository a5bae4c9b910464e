"""Rate limits: GCRA (a token bucket) per caller, by `throttled-py`.

Invalid keys have a separate limit per address, which never blocks valid keys from it: many people may share one
address. Each process counts separately.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

from service.errors import RateLimited
from service.keys.caller import Caller

WINDOW_S = 60
# The least recently used one is evicted: it is most likely full again.
MAX_BUCKETS = 100_000


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit per minute, the requests allowed immediately, and the seconds until the bucket is full."""

    limit: int
    remaining: int
    reset_s: int

    def headers(self) -> dict[str, str]:
        """Response headers of draft-ietf-httpapi-ratelimit-headers-10."""
        return {
            "RateLimit-Policy": f'"minute";q={self.limit};w={WINDOW_S}',
            "RateLimit": f'"minute";r={self.remaining};t={self.reset_s}',
        }


class QuotaExceeded(RateLimited):
    """A rate limit is exceeded; `quota` is for the response headers."""

    def __init__(self, message: str, quota: Quota, *, retry_after_s: int) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.quota = quota


class RateLimits:
    """The buckets of one process."""

    def __init__(self) -> None:
        self._requests = _Buckets("minute")
        self._failures = _Buckets("failures")

    def take(self, caller: Caller) -> Quota | None:
        """Count one request; return the remaining quota, None without a limit. Raises QuotaExceeded."""
        if not caller.rate_per_minute:
            return None
        quota, wait_s = self._requests.take(caller.rate_per_minute, caller.id)
        if not wait_s:
            return quota
        raise QuotaExceeded(
            f"The limit of {quota.limit} requests per minute is exceeded: try again in {wait_s} s.",
            quota,
            retry_after_s=wait_s,
        )

    def count_failure(self, address: str, per_minute: int) -> None:
        """Count one invalid key from an address; `per_minute` 0: no limit. Raises QuotaExceeded."""
        if not per_minute:
            return
        quota, wait_s = self._failures.take(per_minute, address)
        if wait_s:
            raise QuotaExceeded(
                f"This key is invalid, and the limit of {quota.limit} invalid keys per minute from one address is "
                f"exceeded: try again in {wait_s} s with a valid key.",
                quota,
                retry_after_s=wait_s,
            )


class _Buckets:
    def __init__(self, name: str) -> None:
        self._name = name
        self._limiter = cache(self._make_limiter)
        self._store: Any = None

    def take(self, per_minute: int, key: str) -> tuple[Quota, int]:
        """Take a token; return the quota, and the seconds to wait if there was none (else 0)."""
        result = self._limiter(per_minute).limit(key)
        state = result.state
        quota = Quota(per_minute, state.remaining, math.ceil(state.reset_after))
        return quota, max(1, math.ceil(state.retry_after)) if result.limited else 0

    def _make_limiter(self, per_minute: int) -> Any:
        from throttled import MemoryStore, RateLimiterType, Throttled, per_min  # noqa: PLC0415

        if self._store is None:
            self._store = MemoryStore(options={"MAX_SIZE": MAX_BUCKETS})
        # Stored times depend on the rate, so each rate has its own buckets.
        prefix = f"{self._name}-{per_minute}"
        using = RateLimiterType.GCRA.value
        return Throttled(using=using, quota=per_min(per_minute), store=self._store, key_prefix=prefix)
