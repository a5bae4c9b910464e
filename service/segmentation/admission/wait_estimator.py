"""How fast the cores get on with inferences, from those that were done lately."""

from __future__ import annotations

WEIGHT = 0.1
"""Of the newest inference in the mean, once there are more than a few: about the last twenty count."""

MOST = 2
"""Times the mean, that one inference counts: a large image among small ones says little about those that follow."""


class WaitEstimator:
    """Seconds that all cores together take for an inference; 0 as long as there was none."""

    def __init__(self, places: int) -> None:
        """Args: `places`, of which each inference takes some."""
        self._places = places
        self._known = 0
        self.seconds = 0.0

    def took(self, seconds: float, places: int) -> None:
        """Learn from an inference that took so long in so many places."""
        self._known += 1
        share = seconds * places / self._places
        counted = min(share, MOST * self.seconds) if self.seconds else share
        # The first few count alike, so that the very first is soon no more than one of them.
        self.seconds += max(WEIGHT, 1 / self._known) * (counted - self.seconds)

    def wait_s(self, ahead: int) -> float:
        """How long who comes now will wait for so many others."""
        return ahead * self.seconds
