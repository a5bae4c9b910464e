"""Complementary dropout: what one strong view loses, the other keeps (UniMatch V2, section 4.3)."""

# B batch, C channels

from collections.abc import Sequence

import torch
from torch import Tensor


def complementary_masks(
    batch: int, channels: Sequence[int], *, probability: float, undropped_fraction: float, generator: torch.Generator
) -> tuple[list[Tensor], list[Tensor]]:
    """Two channel masks for each of an encoder's maps, one for each strong view.

    The first view keeps a channel with probability 1 - `probability`, scaled to keep the expectation; the second view
    keeps the others. At `probability` 0.5 that is the paper's mask * 2 and 2 - mask * 2. Maps of equal width share one
    mask, as all four of a plain ViT do; the levels of a ConvNet have one each, for their widths differ. A random
    `undropped_fraction` of the images is left whole in both views, as in the authors' code.

    Args:
        batch: number of images B.
        channels: width C_i of each map.
        probability: of a channel being dropped in the first view, 0..1, 1 excluded; 0 drops nothing in either.
        undropped_fraction: part of the images that is left whole, 0..1.
        generator: a CPU generator.

    Returns:
        For each view a list of float [B,C_i], on the CPU.
    """
    whole_B = torch.zeros(batch, dtype=torch.bool)
    whole_B[torch.randperm(batch, generator=generator)[: int(batch * undropped_fraction)]] = True
    by_width: dict[int, tuple[Tensor, Tensor]] = {}
    for width in channels:
        if width not in by_width:
            by_width[width] = _pair(whole_B, width, probability, generator)
    return [by_width[width][0] for width in channels], [by_width[width][1] for width in channels]


def _pair(whole_B: Tensor, width: int, probability: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    shape = (len(whole_B), width)
    if probability == 0:
        return torch.ones(shape), torch.ones(shape)
    keep_BC = torch.rand(shape, generator=generator) >= probability
    first_BC = keep_BC / (1 - probability)
    second_BC = ~keep_BC / probability
    return torch.where(whole_B[:, None], 1.0, first_BC), torch.where(whole_B[:, None], 1.0, second_BC)
