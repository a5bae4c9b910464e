"""The strong augmentation: colour jitter, greyscale and blur, drawn for each image on its own, on the device.

UniMatch V2 (arXiv 2410.10777), section 5.1: jitter 0.5 / 0.5 / 0.5 / 0.25 with probability 0.8, greyscale 0.2, Gaussian
blur 0.5 with sigma 0.1-2.0.
"""

# B batch, C channels, H W pixels

import math

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F  # noqa: N812 (the field's name for it)

JITTER_PROBABILITY = 0.8
GREYSCALE_PROBABILITY = 0.2
BLUR_PROBABILITY = 0.5
BRIGHTNESS = CONTRAST = SATURATION = 0.5
HUE = 0.25
SIGMA_PX = (0.1, 2.0)


def strong_view(image_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """A strongly augmented copy.

    Args:
        image_BCHW: float, RGB, 0..1.
        generator: a CPU generator; equal generators give equal views on every device.

    Returns:
        Float [B,C,H,W], 0..1.
    """
    # Autocast is for the network: a view blurred in bf16 would be off by most of a grey level.
    with torch.autocast(image_BCHW.device.type, enabled=False):
        return torch.stack([_augment(image_CHW, generator) for image_CHW in image_BCHW])


def _augment(image_CHW: Tensor, generator: torch.Generator) -> Tensor:
    if _draw(generator) < JITTER_PROBABILITY:
        image_CHW = _jitter(image_CHW, generator)
    if _draw(generator) < GREYSCALE_PROBABILITY:
        image_CHW = F.rgb_to_grayscale(image_CHW, num_output_channels=3)
    if _draw(generator) < BLUR_PROBABILITY:
        sigma_px = _uniform(*SIGMA_PX, generator)
        image_CHW = F.gaussian_blur(image_CHW, [2 * math.ceil(3 * sigma_px) + 1] * 2, [sigma_px] * 2)
    return image_CHW


def _jitter(image_CHW: Tensor, generator: torch.Generator) -> Tensor:
    brightness = _uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS, generator)
    contrast = _uniform(1 - CONTRAST, 1 + CONTRAST, generator)
    saturation = _uniform(1 - SATURATION, 1 + SATURATION, generator)
    hue = _uniform(-HUE, HUE, generator)
    # torchvision's ColorJitter applies the four in a random order, and so did the authors.
    for turn in torch.randperm(4, generator=generator).tolist():
        if turn == 0:
            image_CHW = F.adjust_brightness(image_CHW, brightness)
        elif turn == 1:
            image_CHW = F.adjust_contrast(image_CHW, contrast)
        elif turn == 2:
            image_CHW = F.adjust_saturation(image_CHW, saturation)
        else:
            image_CHW = F.adjust_hue(image_CHW, hue)
    return image_CHW


def _draw(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * _draw(generator)
