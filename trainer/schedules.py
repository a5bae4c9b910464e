"""Schedules as functions of the step, with no state of their own."""


def poly_factor(step: int, steps: int, power: float) -> float:
    """Learning rate at `step` (0-based) as a part of the initial one: (1 - step / steps) ** power."""
    return float((1 - step / steps) ** power)


def ema_decay(step: int, limit: float) -> float:
    """The teacher's decay at `step` (0-based): min(1 - 1 / (step + 1), limit); 0 at the first step: a copy."""
    return min(1 - 1 / (step + 1), limit)
