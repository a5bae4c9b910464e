"""Models and a pool, as for runs."""

from tests.service.runs.conftest import actor, bad, clock, good, loop, loop_settings

__all__ = ["actor", "bad", "clock", "good", "loop", "loop_settings"]
