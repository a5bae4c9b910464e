"""How hard the tests with generated input try: briefly in the suite and each time alike, for long in `make fuzz`."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

FUZZ = "fuzz"
# As many more examples there are in `make fuzz`.
TIMES = 15

settings.register_profile(FUZZ)


def fuzzing() -> bool:
    """Whether this is `make fuzz`."""
    return settings.get_current_profile_name() == FUZZ


def examples(usual: int) -> int:
    """How many examples a test takes, which takes so many in the suite."""
    return usual * TIMES if fuzzing() else usual


def effort(usual: int) -> settings:
    """The same for a test of Hypothesis, whose examples may take their time."""
    return settings(
        max_examples=examples(usual),
        derandomize=not fuzzing(),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
