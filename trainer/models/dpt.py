"""The DPT head: class logits from four feature maps.

Vision Transformers for Dense Prediction (arXiv 2103.13413), as in UniMatch V2 (arXiv 2410.10777): projections,
reassembly into a pyramid, and fusion from coarse to fine by RefineNet residual units without batch norm.
"""

# B batch, C channels, D fusion channels, K classes, H W pixels

from collections.abc import Sequence

import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor, nn


class ResidualUnit(nn.Module):
    """Two pre-activation 3x3 convolutions with a skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, map_BDHW: Tensor) -> Tensor:
        """Float [B,D,H,W] to the same shape."""
        change_BDHW: Tensor = self.conv2(F.relu(self.conv1(F.relu(map_BDHW))))
        return map_BDHW + change_BDHW


class Fusion(nn.Module):
    """Fuse a level's map with the path from the coarser levels, and resize it to the next level."""

    def __init__(self, width: int, *, coarsest: bool, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.skip = nn.Identity() if coarsest else ResidualUnit(width)
        self.unit = ResidualUnit(width)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, path_BDHW: Tensor | None, level_BDHW: Tensor, size: Sequence[int]) -> Tensor:
        """Path [B,D,H,W] (None at the coarsest level) and level [B,D,H,W] to the new path [B,D,*size]."""
        fused = level_BDHW if path_BDHW is None else path_BDHW + self.skip(level_BDHW)
        # The authors resize before the 1x1 convolution, which commutes: here it processes a quarter of the pixels.
        return resize(self.out(self.unit(fused)), size, align_corners=self.align_corners)


class DPTHead(nn.Module):
    """Project, reassemble, fuse and classify four feature maps.

    Args:
        channels: of the encoder's four maps.
        projections: channels after the 1x1 projections.
        features: channels D of the fusion path.
        classes: number K of classes.
        hierarchical: the maps already form a pyramid. Deviation: the paper has plain ViTs only. Pyramid maps keep their
            sizes; the logits have the finest map's size instead of twice it, at a quarter of the cost; and maps are
            resized with align_corners=False: the grid of a strided convolution has a fixed offset from the image's,
            which aligned corners would increase to three pixels at the right and lower border.
    """

    def __init__(
        self, channels: Sequence[int], projections: Sequence[int], features: int, classes: int, *, hierarchical: bool
    ) -> None:
        super().__init__()
        self.project = nn.ModuleList(
            nn.Conv2d(wide, narrow, 1) for wide, narrow in zip(channels, projections, strict=True)
        )
        self.reassemble = nn.ModuleList(_reassembly(projections, hierarchical=hierarchical))
        self.narrow = nn.ModuleList(nn.Conv2d(width, features, 3, padding=1, bias=False) for width in projections)
        self.fuse = nn.ModuleList(
            Fusion(features, coarsest=level == len(projections) - 1, align_corners=not hierarchical)
            for level in range(len(projections))
        )
        self.classify = nn.Sequential(
            nn.Conv2d(features, features, 3, padding=1), nn.ReLU(), nn.Conv2d(features, classes, 1)
        )
        self.features = features
        self.final_scale = 1 if hierarchical else 2
        self.align_corners = not hierarchical

    def forward(self, maps: Sequence[Tensor], dropout_BD: Tensor | None = None) -> Tensor:
        """Four maps [B,C_i,H_i,W_i], finest first, to logits [B,K,h,w]; `dropout_BD` are factors of the fused map."""
        stages = zip(maps, self.project, self.reassemble, self.narrow, strict=True)
        levels = [narrow(reassemble(project(map_BCHW))) for map_BCHW, project, reassemble, narrow in stages]
        finest = levels[0].shape[-2:]
        sizes = [[side * self.final_scale for side in finest], *(level.shape[-2:] for level in levels[:-1])]
        (fuse, level, size), *finer = reversed(list(zip(self.fuse, levels, sizes, strict=True)))
        path: Tensor = fuse(None, level, size)
        for fuse, level, size in finer:
            path = fuse(path, level, size)
        if dropout_BD is not None:
            path = path * dropout_BD[:, :, None, None]
        return self.classify(path)  # type: ignore[no-any-return]


def resize(map_BCHW: Tensor, size: Sequence[int], *, align_corners: bool) -> Tensor:
    """Bilinear resize; the authors' head always uses align_corners=True."""
    if tuple(map_BCHW.shape[-2:]) == tuple(size):
        return map_BCHW
    return F.interpolate(map_BCHW, tuple(size), mode="bilinear", align_corners=align_corners)


def _reassembly(widths: Sequence[int], *, hierarchical: bool) -> list[nn.Module]:
    if hierarchical:
        return [nn.Identity() for _ in widths]
    return [
        nn.ConvTranspose2d(widths[0], widths[0], 4, stride=4),
        nn.ConvTranspose2d(widths[1], widths[1], 2, stride=2),
        nn.Identity(),
        nn.Conv2d(widths[3], widths[3], 3, stride=2, padding=1),
    ]
