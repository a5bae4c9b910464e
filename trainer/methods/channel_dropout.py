"""Channel dropout on feature maps: complementary (UniMatch V2, arXiv 2410.10777, section 4.3), independent, or none."""

# B batch, C channels

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["complementary", "independent", "none"]


def channel_masks(
    kind: Kind,
    batch: int,
    channels: Sequence[int],
    *,
    probability: float,
    undropped_fraction: float,
    generator: torch.Generator,
) -> tuple[list[Tensor], list[Tensor]]:
    """Channel masks for two strong views: for each view and each of the maps of `channels` float [B,C_i] on the CPU.

    The first view drops a channel with `probability` (0..1, 1 excluded), scaled to keep the expectation. The second
    keeps the others if `kind` is "complementary" (at 0.5 the paper's mask * 2 and 2 - mask * 2), and has its own random
    mask if "independent". Maps with the same number of channels, as all four of a plain ViT, share one mask. A random
    `undropped_fraction` of the images gets no dropout, as in the authors' code. `generator` is on the CPU.
    """
    whole_B = torch.zeros(batch, dtype=torch.bool)
    whole_B[torch.randperm(batch, generator=generator)[: int(batch * undropped_fraction)]] = True
    by_width: dict[int, tuple[Tensor, Tensor]] = {}
    for width in channels:
        if width not in by_width:
            pair = _pair(kind, (batch, width), probability, generator)
            by_width[width] = tuple(torch.where(whole_B[:, None], 1.0, mask_BC) for mask_BC in pair)  # type: ignore[assignment]
    return [by_width[width][0] for width in channels], [by_width[width][1] for width in channels]


def random_mask(shape: tuple[int, int], probability: float, generator: torch.Generator) -> Tensor:
    """Float [B,C]: 0 with `probability`, else 1 / (1 - probability); drawn for each image and channel."""
    return (torch.rand(shape, generator=generator) >= probability) / (1 - probability)


def _pair(kind: Kind, shape: tuple[int, int], probability: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    if kind == "none" or probability == 0:
        return torch.ones(shape), torch.ones(shape)
    first_BC = random_mask(shape, probability, generator)
    if kind == "independent":
        return first_BC, random_mask(shape, probability, generator)
    return first_BC, (first_BC == 0) / probability
