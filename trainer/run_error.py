"""The error of a run, and the detection of out-of-memory errors."""

import torch


class RunError(ValueError):
    """A run that cannot start or continue."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device or the machine ran out of memory; for the CPU, torch reports this only in the message."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
