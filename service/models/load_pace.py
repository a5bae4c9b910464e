"""How often versions may be loaded because somebody asks for them by name.

Where more are asked for than stay loaded, each pushes out the one that is asked for next. Loading takes a core for a
second or more: without an end to it, a few clients would have it going on for ever, beside the model that answers.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

LOADS_PER_MINUTE = 6
# Beyond as many as stay loaded: for whoever compares a few versions, one after the other.
SPARE_LOADS = 6


class LoadPace:
    """A bucket of loads, which fills steadily (GCRA, by `throttled-py`).

    Args:
        places: How many versions stay loaded.
    """

    def __init__(self, places: int) -> None:
        self._most = places + SPARE_LOADS

    def take(self) -> int:
        """Count one load; seconds to wait where there is none left, 0 where there was."""
        result = self._bucket.limit("load")
        return max(1, math.ceil(result.state.retry_after)) if result.limited else 0

    @cached_property
    def _bucket(self) -> Any:
        # Imported where a version is asked for at all.
        from throttled import MemoryStore, RateLimiterType, Throttled, per_min  # noqa: PLC0415

        quota = per_min(LOADS_PER_MINUTE, burst=self._most)
        return Throttled(using=RateLimiterType.GCRA.value, quota=quota, store=MemoryStore())
