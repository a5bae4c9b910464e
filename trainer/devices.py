"""Device and precision of a run."""

import torch

from trainer.config import Recipe
from trainer.run_error import RunError


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is the first GPU, or else the CPU. Raises RunError if it is not available."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RunError(f"train.device = {name!r}: is not available ({error}); use auto, cpu or cuda") from error
    return device


def uses_bf16(recipe: Recipe, device: torch.device) -> bool:
    """Whether the network runs in bf16 autocast."""
    if recipe.train.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return recipe.train.precision == "bf16"
