"""Weighted cross-entropy, and the two ways to weigh labelled pixels: by hardness (OHEM) and by class.

Every mean is in the weights (trainer/methods/student_batch.py), so losses are sums and parts of a batch add up. All is
computed in fp32, whatever the network computes in, and for a few rows at a time, so that memory does not grow with the
number of classes.
"""

# R rows, K classes, H W pixels of the image, h w of the logits

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor

from trainer.chunks import MAX_ELEMENTS, row_chunks
from trainer.config import RecipeError
from trainer.models.dpt import resize

TINY = torch.finfo(torch.float32).tiny


def chunked_cross_entropy(
    logits_RKhw: Tensor,
    label_RHW: Tensor,
    weight_RHW: Tensor,
    factor_R: Tensor,
    *,
    align_corners: bool,
    max_elements: int = MAX_ELEMENTS,
) -> tuple[Tensor, Tensor]:
    """Weighted cross-entropy of resized logits, and its gradient, without the logits at the image's size.

    The gradient of cross-entropy is known, softmax minus one-hot, so no graph of KxHxW tensors is kept: the caller goes
    on with `logits_RKhw.backward(gradient_RKhw)`.

    Args:
        logits_RKhw: the head's, any float dtype.
        label_RHW: int64 class ids in 0..K-1, any where the weight is 0.
        weight_RHW: float, what each pixel counts.
        factor_R: float, what each row's loss counts in the loss that is minimised.
        align_corners: as the head resizes.
        max_elements: bound of a chunk's numbers.

    Returns:
        For each row the sum of weight * cross-entropy, float32 [R]; and the gradient of sum(factor * loss) by the
        logits, [R,K,h,w] in their dtype.
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
    # In place of the logarithms: softmax minus one-hot, times what the pixel counts.
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
    """Weights of the hard pixels alone: online hard example mining (arXiv 1604.03540), as UniMatch V2 on Cityscapes.

    Hard is a pixel whose true class has at most the probability `threshold`; where those are fewer than `min_kept`, the
    `min_kept` least probable ones; where there are fewer pixels at all, each of them.

    Args:
        logits_RKhw: the head's, of all labelled rows that are judged together, any float dtype.
        label_RHW: int64 class ids in 0..K-1, any where the weight is 0.
        weight_RHW: float, what each pixel counts; 0 = not labelled.
        threshold: 0..1.
        min_kept: pixels, of all rows together; one is kept in any case.
        align_corners: as the head resizes.
        max_elements: bound of a chunk's numbers.

    Returns:
        Float [R,H,W]: 0 on easy pixels, on the others the weight, scaled so that the sum stays what it was.
    """
    elements = logits_RKhw.shape[1] * label_RHW[0].numel()
    probability_RHW = torch.cat(
        [
            _true_probability(logits_RKhw[rows], label_RHW[rows], align_corners=align_corners)
            for rows in row_chunks(len(logits_RKhw), elements, max_elements)
        ]
    )
    # No probability is 2: pixels that do not count come last, and where too few count the bound is above all.
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
    """What a pixel of each class counts in the labelled loss, float32 [K].

    Args:
        names: the K classes.
        by_name: weight by class name; classes that are not named have 1.
        frequency_K: pixels of each class in the labelled images, as counts or as parts of the whole.
        balance: classes are weighted by their frequency to the power of minus this, too; 0 = not, 1 = inverse.

    Returns:
        The product of both, scaled to a mean of 1 over the classes that occur; a class that does not occur, and so is
        never counted, has 1.

    Raises:
        RecipeError: `by_name` names a class that there is not, or leaves no class that counts.
    """
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
