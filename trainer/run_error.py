"""The error of a run, and the detection of out-of-memory errors."""

import sys

from trainer.user_error import UserError


class RunError(UserError):
    """A run that cannot start or continue."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device or the machine ran out of memory; for the CPU, torch reports this only in the message."""
    if is_device_out_of_memory(error) or isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def is_device_out_of_memory(error: Exception) -> bool:
    """Whether a GPU's memory was too small."""
    # Programs without torch use this module too, and it is slow to import.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)
