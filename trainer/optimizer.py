"""AdamW with two learning rates: a small one for the pretrained encoder, a larger one for the fresh head."""

import torch
from torch.optim import AdamW

from trainer.config import Train
from trainer.models.segmenter import Segmenter
from trainer.schedules import poly_factor


def build_optimizer(model: Segmenter, train: Train) -> AdamW:
    """AdamW (0.9, 0.999) over encoder and head; parameters that need no gradient are left out."""
    groups = [
        {"params": _trainable(model.encoder), "lr": train.lr_encoder, "initial_lr": train.lr_encoder},
        {
            "params": _trainable(model.head),
            "lr": train.lr_encoder * train.lr_head_factor,
            "initial_lr": train.lr_encoder * train.lr_head_factor,
        },
    ]
    return AdamW(groups, betas=(0.9, 0.999), weight_decay=train.weight_decay, fused=next(model.parameters()).is_cuda)


def set_learning_rate(optimizer: AdamW, step: int, train: Train) -> None:
    """Set every group's learning rate to its value at `step` (0-based)."""
    factor = poly_factor(step, train.steps, train.lr_power)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def _trainable(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
