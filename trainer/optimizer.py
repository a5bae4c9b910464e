"""AdamW with a small learning rate for the pretrained encoder and a larger one for the head, and their schedule."""

from collections import defaultdict

from torch import nn
from torch.optim import AdamW

from trainer.config import Train
from trainer.models.segmenter import Segmenter


def build_optimizer(model: Segmenter, train: Train) -> AdamW:
    """AdamW over all parameters of encoder and head that require gradients."""
    lr = learning_rate(train)
    by_layer: dict[int, list[nn.Parameter]] = defaultdict(list)
    layers = model.encoder.layers() if train.layer_decay < 1 else {}
    for name, parameter in model.encoder.named_parameters():
        if parameter.requires_grad:
            by_layer[layers.get(name, 0)].append(parameter)
    top = max(by_layer, default=0)
    groups = [
        {"params": parameters, "initial_lr": lr * train.layer_decay ** (top - layer)}
        for layer, parameters in sorted(by_layer.items())
    ]
    groups.append({"params": list(model.head.parameters()), "initial_lr": lr * train.lr_head_factor})
    return AdamW(groups, lr=lr, betas=(0.9, 0.999), weight_decay=train.weight_decay, fused=True)


def learning_rate(train: Train) -> float:
    """The encoder's initial learning rate, scaled from lr_reference_batch to batch_labelled."""
    if train.lr_reference_batch == 0:
        return train.lr_encoder
    return train.lr_encoder * train.batch_labelled / train.lr_reference_batch


def set_learning_rate(optimizer: AdamW, step: int, train: Train) -> None:
    """Set every group's learning rate to its value at `step` (0-based)."""
    factor = lr_factor(step, train.steps, power=train.lr_power, warmup_steps=train.warmup_steps)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def lr_factor(step: int, steps: int, *, power: float, warmup_steps: int = 0) -> float:
    """Learning rate at `step` (0-based) as a fraction of the initial one.

    Polynomial decay times a linear warm-up over `warmup_steps`. As in the authors' code, which sets the rate of a step
    after it, the decay is that of the previous step: the first two steps have the initial rate, and the last one
    (2 / steps) ** power.
    """
    warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    return warmup * float((1 - max(step - 1, 0) / steps) ** power)
