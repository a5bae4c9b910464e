"""What a run raises when it cannot go on."""

import torch


class RunError(ValueError):
    """A run that cannot start or go on; the message says what to do."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether the memory of a device or of the machine is too small; of a CPU's torch says so in words alone."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
