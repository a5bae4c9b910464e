"""Number of generated examples: few and deterministic in the test suite, many and random in `make fuzz`."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

FUZZ = "fuzz"
# Factor of examples in `make fuzz`.
FACTOR = 15

settings.register_profile(FUZZ)


def fuzzing() -> bool:
    """Whether this is `make fuzz`."""
    return settings.get_current_profile_name() == FUZZ


def examples(usual: int) -> int:
    """Return the number of examples of a test that runs `usual` in the suite."""
    return usual * FACTOR if fuzzing() else usual


def effort(usual: int) -> settings:
    """Return the Hypothesis settings of such a test; an example has no deadline."""
    return settings(
        max_examples=examples(usual),
        derandomize=not fuzzing(),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
