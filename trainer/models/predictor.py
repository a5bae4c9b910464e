"""Predict masks from images of any size; the trainer evaluates this network, and the exporter converts it to ONNX."""

# N images, H W pixels of the image, h w size of the network's input or of the head's logits, K classes, D channels of
# the encoder's last map

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Size, Tensor, nn

from trainer.models.embedding import image_embedding
from trainer.models.segmenter import Segmenter, to_float
from trainer.models.upsampled_argmax import upsampled_argmax

UINT8_CLASSES = 256


class MaskPredictor(nn.Module):
    """Maps images to masks of their size; resizes the long side to `long_side` pixels first, unless 0."""

    def __init__(self, segmenter: Segmenter, long_side: int = 0) -> None:
        super().__init__()
        self.segmenter, self.long_side = segmenter, long_side

    def forward(self, image_NHWC: Tensor, grid_hw: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Predict masks and embeddings of RGB images, uint8 [N,H,W,3].

        Returns class ids uint8 [N,H,W], their softmax uint8 [N,H,W], 255 = 1.0, and `image_embedding`, float16 [N,D].
        Above 256 classes the ids are int32, which the exporter casts to uint16. The exporter passes `grid_hw`: its
        sides are those of the network's input in multiples of `size_multiple`.
        """
        maps = self.segmenter.encode(self.network_input(image_NHWC, grid_hw))
        class_NHW, confidence_NHW = self.classify(maps, image_NHWC.shape[1:3])
        id_type = torch.uint8 if self.segmenter.classes <= UINT8_CLASSES else torch.int32
        mask_NHW, steps_NHW = class_NHW.to(id_type), (confidence_NHW * 255).round().to(torch.uint8)
        # The coarsest map of a pyramid, the last block's of a plain ViT.
        return mask_NHW, steps_NHW, image_embedding(maps[-1])

    def most_likely(self, image_NHWC: Tensor, grid_hw: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Class ids int64 [N,H,W], and the softmax of that class, float32 [N,H,W]."""
        return self.classify(self.segmenter.encode(self.network_input(image_NHWC, grid_hw)), image_NHWC.shape[1:3])

    def classify(self, maps: Sequence[Tensor], size: Size) -> tuple[Tensor, Tensor]:
        """Class ids int64 [N,*size] of the encoder's maps, and the softmax of that class, float32 [N,*size]."""
        # Deviation: the authors resize the logits to the network's input size, then to the image's. One resize is half
        # the work, and moves the mask by less than half a pixel.
        logits_NKhw = self.segmenter.head(maps)
        return upsampled_argmax(logits_NKhw, size, align_corners=self.segmenter.head.align_corners)

    def network_input(self, image_NHWC: Tensor, grid_hw: Tensor | None = None) -> Tensor:
        """Images uint8 [N,H,W,3] to float [N,3,h,w] in 0..1 at `input_size`.

        As in the authors' evaluation, corners stay on corners. Deviation: not with `long_side`, which they do not have,
        since antialiasing is by pixel centres, nor in a pyramid, whose head is by pixel centres too (see DPTHead).
        """
        reduced = self.long_side > 0
        return F.interpolate(
            to_float(image_NHWC),
            self.input_size(image_NHWC, grid_hw),
            mode="bilinear",
            align_corners=self.segmenter.head.align_corners and not reduced,
            antialias=reduced,
        )

    def input_size(self, image_NHWC: Tensor, grid_hw: Tensor | None) -> list[int]:
        """Height and width of the network's input, for the grid if there is one, else for the image."""
        if grid_hw is not None:
            return [side * self.segmenter.size_multiple for side in grid_hw.shape]
        return list(self.network_size(*image_NHWC.shape[1:3]))

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the network's input: multiples of the patch size or of the coarsest stride."""
        multiple = self.segmenter.size_multiple
        if self.long_side == 0:
            return _nearest(height, 1, multiple), _nearest(width, 1, multiple)
        longest = _larger(height, width)
        return _nearest(height * self.long_side, longest, multiple), _nearest(width * self.long_side, longest, multiple)


def _nearest(numerator: int, denominator: int, multiple: int) -> int:
    """The quotient rounded to a multiple, at least one; in integers: PyTorch and the graph agree."""
    rounded = (2 * numerator + denominator * multiple) // (2 * denominator * multiple) * multiple
    return _larger(rounded, multiple)


def _larger(first: int, second: int) -> int:
    # Python's max() would become a constant in the traced graph.
    return torch.sym_max(first, second)  # type: ignore[no-any-return, no-untyped-call]
