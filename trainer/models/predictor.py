"""From a camera's pixels to class ids: the one preprocessing and postprocessing there is.

Evaluation runs this module and the exporter turns this module into the graph that the service runs, so the mIoU that
the trainer reports is the mIoU that the service serves.
"""

# N images, H W pixels of the image, h w pixels that the network sees, K classes

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor, nn

from trainer.models.segmenter import Segmenter, to_float
from trainer.models.upsampled_argmax import upsampled_argmax

UINT8_CLASSES = 256


class MaskPredictor(nn.Module):
    """Images of any size to masks of that size.

    Args:
        segmenter: the network.
        long_side: pixels to which an image's long side is brought for the network; 0 keeps its size.
    """

    def __init__(self, segmenter: Segmenter, long_side: int = 0) -> None:
        super().__init__()
        self.segmenter, self.long_side = segmenter, long_side

    def forward(self, image_NHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Predict masks.

        Args:
            image_NHWC: uint8 [N,H,W,3], RGB.

        Returns:
            mask uint8 [N,H,W] of class ids (int32 above 256 classes: the exporter narrows it to uint16), and confidence
            uint8 [N,H,W], the softmax of the chosen class with 255 = 1.0.
        """
        class_NHW, confidence_NHW = self.most_likely(image_NHWC)
        id_type = torch.uint8 if self.segmenter.classes <= UINT8_CLASSES else torch.int32
        return class_NHW.to(id_type), (confidence_NHW * 255).round().to(torch.uint8)

    def most_likely(self, image_NHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Class ids int64 [N,H,W], and the softmax of the chosen class, float32 [N,H,W]."""
        height, width = image_NHWC.shape[1:3]
        small_NChw = F.interpolate(
            to_float(image_NHWC),
            self.network_size(height, width),
            mode="bilinear",
            align_corners=False,
            antialias=self.long_side > 0,
        )
        # Deviation: the authors bring the logits to the size that the network saw, and then to the image's. In one step
        # it is half the work, and the mask differs by less than half a pixel of the image.
        logits_NKhw = self.segmenter(small_NChw, upsample=False)
        return upsampled_argmax(logits_NKhw, (height, width), align_corners=self.segmenter.head.align_corners)

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """The height and width that the network sees: multiples of the patch or of the coarsest stride."""
        multiple = self.segmenter.size_multiple
        if self.long_side == 0:
            return _nearest(height, 1, multiple), _nearest(width, 1, multiple)
        longest = _larger(height, width)
        return _nearest(height * self.long_side, longest, multiple), _nearest(width * self.long_side, longest, multiple)


def _nearest(numerator: int, denominator: int, multiple: int) -> int:
    """The quotient rounded to a multiple, at least one of it; in whole numbers, so that eager and graph agree."""
    rounded = (2 * numerator + denominator * multiple) // (2 * denominator * multiple) * multiple
    return _larger(rounded, multiple)


def _larger(first: int, second: int) -> int:
    # Python's max() would fix the answer while the graph is traced.
    return torch.sym_max(first, second)  # type: ignore[no-any-return, no-untyped-call]
