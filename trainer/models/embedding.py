"""Embedding of an image: the encoder's last feature map, averaged over its positions, with length 1.

It is the map that the head reads: of a plain ViT the last block's patches after the final norm (UniMatch V2, arXiv
2410.10777, section 5.1), of a hierarchical network its coarsest stage. Without the norm, the few channels of very large
values that ViTs have (arXiv 2402.17762) would decide every cosine. The class token is left out: training uses only the
patches, so only their features follow the data.
"""

# N images, D channels, h w positions

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor


def image_embedding(map_NDhw: Tensor) -> Tensor:
    """Mean of a map float [N,D,h,w] over its positions, L2-normalised in float32: float16 [N,D]."""
    mean_ND = map_NDhw.float().mean(dim=(2, 3))
    return F.normalize(mean_ND, dim=1).to(torch.float16)
