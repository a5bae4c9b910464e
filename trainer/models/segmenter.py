"""The segmentation network: encoder, optional channel dropout, DPT head, logits at the image's size."""

# B batch, C channels, K classes, H W pixels

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.config import Model
from trainer.models.dpt import DPTHead, resize
from trainer.models.encoders.encoder import Encoder, build_encoder


class Segmenter(nn.Module):
    """Maps images to class logits; height and width must be multiples of `size_multiple`, in pixels."""

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder, head: DPTHead, classes: int) -> None:
        super().__init__()
        self.encoder, self.head, self.classes = encoder, head, classes
        self.size_multiple = encoder.size_multiple
        # Buffers, so that training, evaluation and the exported graph normalise alike.
        self.register_buffer("mean", torch.tensor(encoder.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(encoder.std).view(3, 1, 1), persistent=False)

    def forward(
        self,
        image_BCHW: Tensor,
        dropout: Sequence[Tensor] | None = None,
        head_dropout: Tensor | None = None,
        *,
        upsample: bool = True,
    ) -> Tensor:
        """Compute logits.

        Args:
            image_BCHW: float, RGB, 0..1.
            dropout: for each of the four maps a factor per image and channel, float [B,C_i]; None = no dropout.
            head_dropout: the same for the head's fused map, float [B,D].
            upsample: resize the logits to the image's size; training does this in the loss.

        Returns:
            Float [B,K,H,W]; with upsample=False [B,K,h,w] at the head's size.
        """
        maps = self.encode(image_BCHW)
        if dropout is not None:
            maps = [map_BCHW * mask_BC[:, :, None, None] for map_BCHW, mask_BC in zip(maps, dropout, strict=True)]
        logits_BKhw = self.head(maps, head_dropout)
        return self.upsample(logits_BKhw, image_BCHW.shape[-2:]) if upsample else logits_BKhw

    def encode(self, image_BCHW: Tensor) -> list[Tensor]:
        """Normalise images, float [B,3,H,W] RGB in 0..1, and compute the encoder's four maps, the finest first."""
        maps: list[Tensor] = self.encoder((image_BCHW - self.mean) / self.std)
        return maps

    def upsample(self, logits_BKhw: Tensor, size: Sequence[int]) -> Tensor:
        """Resize logits to `size`, with the head's interpolation mode."""
        return resize(logits_BKhw, size, align_corners=self.head.align_corners)


def build_segmenter(model: Model, classes: int) -> Segmenter:
    """Build the network of a recipe, with random weights. Raises EncoderError."""
    encoder = build_encoder(model.encoder, model.encoder_options)
    head = DPTHead(encoder.channels, model.projections, model.features, classes, hierarchical=encoder.hierarchical)
    return Segmenter(encoder, head, classes)


def to_float(image_BHWC: Tensor) -> Tensor:
    """Images uint8 [B,H,W,3] to float [B,3,H,W] in 0..1."""
    # Cast first: TensorRT supports uint8 only as a graph input.
    return image_BHWC.to(torch.float32).permute(0, 3, 1, 2) / 255
