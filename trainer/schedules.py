"""Learning-rate and EMA schedules as stateless functions of the step."""


def lr_factor(step: int, steps: int, *, power: float, warmup_steps: int = 0) -> float:
    """Learning rate at `step` (0-based) as a fraction of the initial one.

    Polynomial decay, (1 - step / steps) ** power, multiplied by a linear warm-up that ends at `warmup_steps`.
    """
    warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    return warmup * float((1 - step / steps) ** power)


def ema_decay(step: int, limit: float) -> float:
    """The teacher's decay at `step` (0-based): min(1 - 1 / (step + 1), limit); 0 at the first step, a copy."""
    return min(1 - 1 / (step + 1), limit)
