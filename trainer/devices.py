"""Where a run computes, and in which precision."""

import torch

from trainer.config import Recipe
from trainer.run_error import RunError


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is the first GPU, else the CPU. Raises RunError when there is none such here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RunError(f"train.device = {name!r}: is not to be had here ({error}); use auto, cpu or cuda") from error
    return device


def uses_bf16(recipe: Recipe, device: torch.device) -> bool:
    """Whether the network computes in bf16."""
    if recipe.train.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return recipe.train.precision == "bf16"
