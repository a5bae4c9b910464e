"""Networks that take one image size: an image is processed in tiles of that size."""

# B batch, T tiles of all images, C channels, H W pixels, r c rows and columns of tiles, h w cells of a tile's map

import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor, nn

from trainer.models.encoders.encoder_base import Encoder
from trainer.models.encoders.windows import count


class Tiled(Encoder):
    """Run an encoder on tiles of `tile` (height, width) pixels and join their maps.

    Deviation: a tile does not see its neighbours. The tiles at the right and lower border are filled with the mean
    colour.
    """

    def __init__(self, encoder: Encoder, tile: tuple[int, int]) -> None:
        super().__init__()
        self.encoder, self.tile = encoder, tile
        self.channels, self.strides, self.size_multiple = encoder.channels, encoder.strides, encoder.size_multiple
        self.mean, self.std = encoder.mean, encoder.std
        note = f"it takes images of {tile[1]}x{tile[0]} pixels only and runs on tiles of that size"
        self.notes = (*encoder.notes, note)

    def blocks(self) -> list[nn.Module]:
        """See Encoder."""
        return self.encoder.blocks()

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """See Encoder."""
        (batch, _, height, width), (tall, wide) = image_BCHW.shape, self.tile
        rows, columns = count(height, tall), count(width, wide)
        image_BCHW = F.pad(image_BCHW, (0, columns * wide - width, 0, rows * tall - height))
        tile_BrcCHW = image_BCHW.reshape(batch, 3, rows, tall, columns, wide).permute(0, 2, 4, 1, 3, 5)
        maps = []
        for map_TChw, stride in zip(self.encoder(tile_BrcCHW.flatten(0, 2)), self.strides, strict=True):
            map_BCrhcw = map_TChw.unflatten(0, (batch, rows, columns)).permute(0, 3, 1, 4, 2, 5)
            map_BCHW = map_BCrhcw.flatten(4, 5).flatten(2, 3)
            maps.append(map_BCHW.narrow(2, 0, height // stride).narrow(3, 0, width // stride))
        return maps
