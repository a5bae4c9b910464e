"""The two losses of UniMatch V2 (arXiv 2410.10777, section 3), both in fp32 whatever the network computes in."""

# B batch, K classes, H W pixels

import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor


def labelled_loss(logits_BKHW: Tensor, mask_BHW: Tensor, ignore_index: int) -> Tensor:
    """Cross-entropy, averaged over the labelled pixels; 0 where there are none.

    Args:
        logits_BKHW: any float dtype.
        mask_BHW: int64 class ids, `ignore_index` where unlabelled.
        ignore_index: the mask value that does not count.
    """
    total = F.cross_entropy(logits_BKHW.float(), mask_BHW, ignore_index=ignore_index, reduction="sum")
    return total / (mask_BHW != ignore_index).sum().clamp(min=1)


def consistency_loss(
    logits_BKHW: Tensor, label_BHW: Tensor, confidence_BHW: Tensor, inside_BHW: Tensor, *, threshold: float
) -> Tensor:
    """Cross-entropy against pseudo-labels: the sum over confident pixels, divided by the count of all inside the image.

    Args:
        logits_BKHW: the student's, any float dtype.
        label_BHW: int64 pseudo-labels.
        confidence_BHW: float, 0..1.
        inside_BHW: bool, False on padding.
        threshold: pixels of at least this confidence count.
    """
    pixel_loss_BHW = F.cross_entropy(logits_BKHW.float(), label_BHW, reduction="none")
    confident_BHW = (confidence_BHW >= threshold) & inside_BHW
    # The authors divide by a count that can be zero; an all-padding batch has no loss.
    return (pixel_loss_BHW * confident_BHW).sum() / inside_BHW.sum().clamp(min=1)
