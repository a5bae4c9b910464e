"""Weighted cross-entropy, and weights of labelled pixels by hardness (OHEM) and by class.

Losses are sums, since the pixel weights contain the division of every mean. They are in fp32 under any autocast, and
computed a few rows at a time.
"""

# R rows, K classes, H W pixels of the image, h w of the logits

from collections.abc import Iterator, Mapping, Sequence
from unicodedata import normalize

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor

from trainer.config import RecipeError
from trainer.models.dpt import resize

TINY = torch.finfo(torch.float32).tiny
MAX_ELEMENTS = 2**26
"""Maximum elements of one intermediate tensor (classes x pixels): 256 MiB in fp32."""


def row_chunks(rows: int, elements_per_row: int, max_elements: int = MAX_ELEMENTS) -> Iterator[slice]:
    """Slices that cover `rows` in order, each of at most `max_elements` elements, but at least one row."""
    at_once = max(1, max_elements // elements_per_row)
    for start in range(0, rows, at_once):
        yield slice(start, min(start + at_once, rows))


def chunked_cross_entropy(
    logits_RKhw: Tensor,
    label_RHW: Tensor,
    weight_RHW: Tensor,
    factor_R: Tensor,
    *,
    align_corners: bool,
    max_elements: int = MAX_ELEMENTS,
) -> tuple[Tensor, Tensor]:
    """Weighted cross-entropy of upsampled logits, and its gradient, in chunks.

    No autograd graph of [K,H,W] tensors is kept: the caller continues with `logits_RKhw.backward(gradient_RKhw)`.

    Args:
        logits_RKhw: the head's logits, any float dtype.
        label_RHW: int64 class ids in 0..K-1; any class id where the weight is 0.
        weight_RHW: float.
        factor_R: float weight of each row's loss in the gradient.
        align_corners: as in the head's resize.
        max_elements: of a chunk.

    Returns:
        The sum of weight * cross-entropy of each row, float32 [R]; and the gradient of sum(factor * loss) with respect
        to the logits, [R,K,h,w] in their dtype.
    """
    loss_R = torch.empty(len(logits_RKhw), device=logits_RKhw.device)
    gradient_RKhw = torch.empty_like(logits_RKhw)
    elements = logits_RKhw.shape[1] * label_RHW[0].numel()
    with torch.autocast(logits_RKhw.device.type, enabled=False):
        for rows in row_chunks(len(logits_RKhw), elements, max_elements):
            loss_R[rows], gradient_RKhw[rows] = _cross_entropy(
                logits_RKhw[rows].detach().float(),
                label_RHW[rows],
                weight_RHW[rows],
                factor_R[rows],
                align_corners=align_corners,
            )
    return loss_R, gradient_RKhw


@torch.enable_grad()
def _cross_entropy(
    logits_RKhw: Tensor, label_RHW: Tensor, weight_RHW: Tensor, factor_R: Tensor, *, align_corners: bool
) -> tuple[Tensor, Tensor]:
    logits_RKhw.requires_grad_()
    resized_RKHW = resize(logits_RKhw, label_RHW.shape[-2:], align_corners=align_corners)
    log_RKHW = resized_RKHW.detach().log_softmax(dim=1)
    label_R1HW = label_RHW[:, None]
    loss_R = -(log_RKHW.gather(1, label_R1HW)[:, 0] * weight_RHW).sum(dim=(1, 2))
    # Overwrites the logarithms: (softmax - one-hot) * weight * factor.
    slope_RKHW = log_RKHW.exp_().scatter_add_(1, label_R1HW, log_RKHW.new_full((), -1).expand_as(label_R1HW))
    slope_RKHW *= (weight_RHW * factor_R[:, None, None])[:, None]
    (gradient_RKhw,) = torch.autograd.grad(resized_RKHW, logits_RKhw, slope_RKHW)
    return loss_R, gradient_RKhw


@torch.no_grad()
def ohem_weights(
    logits_RKhw: Tensor,
    label_RHW: Tensor,
    weight_RHW: Tensor,
    *,
    threshold: float,
    min_kept: int,
    align_corners: bool,
    max_elements: int = MAX_ELEMENTS,
) -> Tensor:
    """Pixel weights of online hard example mining (OHEM, arXiv 1604.03540), as in UniMatch V2 on Cityscapes.

    A pixel is hard if its true class has at most the probability `threshold`, or one of the `min_kept` (at least one)
    lowest probabilities over all rows. A pixel of weight 0 is not labelled; the other arguments are those of
    `chunked_cross_entropy`.

    Returns:
        Float [R,H,W]: 0 on easy pixels; on hard pixels the weight, scaled to keep the sum over all pixels.
    """
    elements = logits_RKhw.shape[1] * label_RHW[0].numel()
    probability_RHW = torch.cat(
        [
            _true_probability(logits_RKhw[rows], label_RHW[rows], align_corners=align_corners)
            for rows in row_chunks(len(logits_RKhw), elements, max_elements)
        ]
    )
    # Unlabelled pixels get 2, above every probability, so they rank last.
    ranked = torch.where(weight_RHW > 0, probability_RHW, 2.0).flatten()
    bound = ranked.kthvalue(max(1, min(min_kept, len(ranked)))).values.clamp(min=threshold)
    kept_RHW = weight_RHW * (probability_RHW <= bound)
    return kept_RHW * (weight_RHW.sum() / kept_RHW.sum().clamp(min=TINY))


def _true_probability(logits_RKhw: Tensor, label_RHW: Tensor, *, align_corners: bool) -> Tensor:
    with torch.autocast(logits_RKhw.device.type, enabled=False):
        resized_RKHW = resize(logits_RKhw.float(), label_RHW.shape[-2:], align_corners=align_corners)
        loss_RHW = F.cross_entropy(resized_RKHW, label_RHW, reduction="none")
    return loss_RHW.neg().exp()


def class_weights(names: Sequence[str], by_name: Mapping[str, float], frequency_K: Tensor, balance: float) -> Tensor:
    """Weight of each class in the labelled loss, float32 [K].

    The weight is `by_name` (1 for other classes) times frequency ** -balance, scaled to a mean of 1 over the classes
    that occur, and 1 for classes that do not. `names` are a taxonomy's; all Unicode forms in `by_name` are found.
    `frequency_K` are labelled pixels, as counts or fractions.

    Raises RecipeError if `by_name` contains an unknown class, or no class that occurs has a weight above 0.
    """
    by_name = {normalize("NFC", name): weight for name, weight in by_name.items()}
    if unknown := sorted(set(by_name) - set(names)):
        raise RecipeError(
            f"loss.class_weights: the data set has no class {', '.join(unknown)}; its classes are {', '.join(names)}"
        )
    named_K = torch.tensor([by_name.get(name, 1.0) for name in names])
    part_K = frequency_K.float() / frequency_K.sum()
    present_K = part_K > 0
    weight_K = named_K * torch.where(present_K, part_K, 1.0) ** -balance
    mean = weight_K[present_K].mean()
    if not mean > 0:
        raise RecipeError("loss.class_weights: no class that occurs in the labelled images has a weight above 0")
    return torch.where(present_K, weight_K / mean, 1.0)
