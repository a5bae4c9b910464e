"""Predict masks by a recipe's inference rule: whole image, or sliding window.

Whole images use MaskPredictor, which the exporter also converts to ONNX.
"""

# N images, C channels, K classes, H W pixels of the image, h w pixels of the network's input, b rows of a band

from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor

from trainer.config import Inference
from trainer.evaluation.sliding import check_window, sliding_bands, sliding_probabilities
from trainer.models.predictor import MaskPredictor
from trainer.models.segmenter import Segmenter, to_float


def most_likely(segmenter: Segmenter, image_NHWC: Tensor, inference: Inference) -> tuple[Tensor, Tensor]:
    """Class ids int64 [N,H,W] of images (uint8, RGB), and their softmax float32 [N,H,W]; the network is in eval mode.

    Memory in addition to the network's: for a whole image a few dozen floats per pixel, for any number of classes; with
    a window of height h, 2*K*h*W floats (150 classes, width 4000, window height 798: 3.8 GB).
    Raises RecipeError if the window does not fit the encoder.
    """
    if not any(inference.window):
        return MaskPredictor(segmenter, inference.long_side).most_likely(image_NHWC)
    masks, confidences = [], []
    for probability_NKbW in _bands(segmenter, image_NHWC, inference):
        confidence_NbW, mask_NbW = probability_NKbW.max(dim=1)
        masks.append(mask_NbW)
        confidences.append(confidence_NbW)
    return torch.cat(masks, dim=1), torch.cat(confidences, dim=1)


def _bands(segmenter: Segmenter, image_NHWC: Tensor, inference: Inference) -> Iterator[Tensor]:
    size = (image_NHWC.shape[1], image_NHWC.shape[2])
    check_window(inference.window, segmenter.size_multiple)
    image_NCHW = to_float(image_NHWC)
    if inference.long_side == 0:
        yield from sliding_bands(segmenter, image_NCHW, inference.window, inference.window_stride)
        return
    factor = inference.long_side / max(size)
    small = (max(1, round(size[0] * factor)), max(1, round(size[1] * factor)))
    small_NChw = F.interpolate(image_NCHW, small, mode="bilinear", align_corners=False, antialias=True)
    probability_NKhw = sliding_probabilities(segmenter, small_NChw, inference.window, inference.window_stride)
    yield F.interpolate(probability_NKhw, size, mode="bilinear", align_corners=False)
