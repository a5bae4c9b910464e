"""How fast the cores get on with inferences, from those that were done lately."""

from __future__ import annotations

WEIGHT = 0.1
"""Of the newest inference in the mean: about the last twenty count."""


class Pace:
    """Seconds that all cores together take for an inference; 0 as long as there was none."""

    def __init__(self, places: int) -> None:
        """Args: `places`, of which each inference takes some."""
        self._places = places
        self.seconds = 0.0

    def took(self, seconds: float, places: int) -> None:
        """Learn from an inference that took so long in so many places."""
        share = seconds * places / self._places
        self.seconds = self.seconds + WEIGHT * (share - self.seconds) if self.seconds else share

    def wait_s(self, ahead: int) -> float:
        """How long who comes now will wait for so many others."""
        return ahead * self.seconds
