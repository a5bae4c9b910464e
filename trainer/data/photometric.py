"""The strong augmentation: colour jitter, greyscale and blur, drawn for each image on its own, on the device.

UniMatch V2 (arXiv 2410.10777), section 5.1: jitter 0.5 / 0.5 / 0.5 / 0.25 with probability 0.8, greyscale 0.2, Gaussian
blur 0.5 with sigma 0.1-2.0. What is drawn lies on the CPU, so that it is known there which rows an operation changes;
the pixels stay on the device, which is never waited for.
"""

# B batch, R rows of it that an operation changes, C channels, H W pixels

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor

JITTER_PROBABILITY = 0.8
GREYSCALE_PROBABILITY = 0.2
BLUR_PROBABILITY = 0.5
BRIGHTNESS = CONTRAST = SATURATION = 0.5
HUE = 0.25
SIGMA_PX = (0.1, 2.0)

TURN_BRIGHTNESS, TURN_CONTRAST, TURN_SATURATION, TURN_HUE, NO_TURN = range(5)
LUMA = (0.2989, 0.587, 0.114)
TINY = torch.finfo(torch.float32).tiny


class Photometric(NamedTuple):
    """What is done to each image of a batch; tensors on the CPU.

    Attributes:
        jitter_B: bool, whether the colours are jittered.
        brightness_B: factor, float.
        contrast_B: factor, float.
        saturation_B: factor, float.
        hue_B: shift in turns of the colour circle, float.
        order_B4: int64, which of the four comes first, second, third and last: 0 brightness, 1 contrast, 2 saturation,
            3 hue.
        grey_B: bool, whether the colours are taken away.
        blur_B: bool, whether the image is blurred.
        sigma_px_B: standard deviation of the blur, float, in pixels.
    """

    jitter_B: Tensor
    brightness_B: Tensor
    contrast_B: Tensor
    saturation_B: Tensor
    hue_B: Tensor
    order_B4: Tensor
    grey_B: Tensor
    blur_B: Tensor
    sigma_px_B: Tensor

    def rows(self, index: Tensor) -> "Photometric":
        """Those of the images with these indices, int64 on the CPU."""
        return Photometric(*(tensor[index] for tensor in self))


def draw_photometric(batch: int, generator: torch.Generator) -> Photometric:
    """Draw for each image of a batch, from a CPU generator."""
    draw = torch.rand(12, batch, generator=generator)
    return Photometric(
        jitter_B=draw[0] < JITTER_PROBABILITY,
        brightness_B=1 + BRIGHTNESS * (2 * draw[1] - 1),
        contrast_B=1 + CONTRAST * (2 * draw[2] - 1),
        saturation_B=1 + SATURATION * (2 * draw[3] - 1),
        hue_B=HUE * (2 * draw[4] - 1),
        grey_B=draw[5] < GREYSCALE_PROBABILITY,
        blur_B=draw[6] < BLUR_PROBABILITY,
        sigma_px_B=SIGMA_PX[0] + (SIGMA_PX[1] - SIGMA_PX[0]) * draw[7],
        # torchvision's ColorJitter applies the four in a random order, and so did the authors.
        order_B4=draw[8:].argsort(dim=0).T,
    )


@torch.no_grad()
def strong_view(image_BCHW: Tensor, parameters: Photometric) -> Tensor:
    """A strongly augmented copy.

    Args:
        image_BCHW: float32, RGB, 0..1.
        parameters: what is done to each image.

    Returns:
        Float32 [B,C,H,W], 0..1: what torchvision's functions give for each image on its own, to rounding.
    """
    # No matrix product and no convolution: autocast, which would make a view off by most of a grey level, has no say.
    view_BCHW = image_BCHW.clone(memory_format=torch.contiguous_format)
    for turn_B in torch.where(parameters.jitter_B[:, None], parameters.order_B4, NO_TURN).unbind(dim=1):
        _blend(view_BCHW, turn_B, parameters)
        _shift_hue(view_BCHW, turn_B == TURN_HUE, parameters.hue_B)
    _take_colour(view_BCHW, parameters.grey_B)
    _blur(view_BCHW, parameters.blur_B, parameters.sigma_px_B)
    return view_BCHW


def _blend(view_BCHW: Tensor, turn_B: Tensor, parameters: Photometric) -> None:
    """Brightness, contrast and saturation at once: each blends the image with black, its mean grey or its own grey."""
    factors_4B = torch.stack(
        [parameters.brightness_B, parameters.contrast_B, parameters.saturation_B, torch.ones_like(parameters.hue_B)]
    )
    factor_B = factors_4B.gather(0, turn_B.clamp(max=TURN_HUE)[None])[0]
    mean_B, grey_B = ((1 - factor_B) * (turn_B == turn) for turn in (TURN_CONTRAST, TURN_SATURATION))
    shares = _on(torch.stack([factor_B, mean_B, grey_B]), view_BCHW)
    factor_B111, mean_B111, grey_B111 = shares.view(3, -1, 1, 1, 1).unbind()
    grey_B1HW = _grey(view_BCHW)
    other_B1HW = grey_B1HW.mean(dim=(2, 3), keepdim=True) * mean_B111 + grey_B1HW * grey_B111
    view_BCHW.mul_(factor_B111).add_(other_B1HW).clamp_(0, 1)


def _shift_hue(view_BCHW: Tensor, chosen_B: Tensor, shift_B: Tensor) -> None:
    """Turn the colour circle, by the closed form of HSV to RGB, which needs no case for each sixth of the circle."""
    if not chosen_B.any():
        return
    image_RCHW = _take(view_BCHW, chosen_B)
    red_RHW, green_RHW, blue_RHW = image_RCHW.unbind(dim=1)
    most_RHW = image_RCHW.amax(dim=1)
    range_RHW = most_RHW - image_RCHW.amin(dim=1)
    # Where the range is 0 the channels are equal, and so are their differences: any divisor will do.
    divisor_RHW = range_RHW.clamp(min=TINY)
    green_most_RHW = (blue_RHW - red_RHW).div_(divisor_RHW).add_(2)
    blue_most_RHW = (red_RHW - green_RHW).div_(divisor_RHW).add_(4)
    hue_RHW = torch.where(most_RHW == green_RHW, green_most_RHW, blue_most_RHW)
    hue_RHW = torch.where(most_RHW == red_RHW, (green_RHW - blue_RHW).div_(divisor_RHW), hue_RHW)
    # In sixths of the circle: each channel is at its most within one of its own place, at its least beyond two.
    shift_R = 6 * shift_B[chosen_B]
    shift_RC11 = _on(shift_R[:, None] - torch.tensor([0.0, 2.0, 4.0]), view_BCHW)[:, :, None, None]
    distance_RCHW = hue_RHW[:, None] + shift_RC11
    distance_RCHW.sub_((distance_RCHW / 6).round_(), alpha=6).abs_()
    lost_RCHW = distance_RCHW.sub_(1).clamp_(0, 1).mul_(range_RHW[:, None])
    _put(view_BCHW, chosen_B, most_RHW[:, None] - lost_RCHW)


def _take_colour(view_BCHW: Tensor, chosen_B: Tensor) -> None:
    if chosen_B.any():
        _put(view_BCHW, chosen_B, _grey(_take(view_BCHW, chosen_B)).expand(-1, 3, -1, -1))


def _blur(view_BCHW: Tensor, chosen_B: Tensor, sigma_px_B: Tensor) -> None:
    """Along each axis a weighted sum of shifted images; every row has its own kernel, of support 2 ceil(3 sigma) + 1.

    For so small kernels that is several times as fast on a CPU as a grouped convolution, and it is fp32 on every
    device, where a convolution may be TF32.
    """
    if not chosen_B.any():
        return
    kernel_RT = _gaussians(sigma_px_B[chosen_B])
    radius = kernel_RT.shape[1] // 2
    image_RCHW = F.pad(_take(view_BCHW, chosen_B), [radius] * 4, mode="reflect")
    taps_T = _on(kernel_RT, view_BCHW).T[:, :, None, None, None].unbind()
    _put(view_BCHW, chosen_B, _weighted_sum(_weighted_sum(image_RCHW, taps_T, dim=2), taps_T, dim=3))


def _weighted_sum(image_RCHW: Tensor, taps_T: Sequence[Tensor], dim: int) -> Tensor:
    length = image_RCHW.shape[dim] - len(taps_T) + 1
    sum_RCHW = image_RCHW.narrow(dim, 0, length) * taps_T[0]
    for start, tap_R111 in enumerate(taps_T[1:], 1):
        sum_RCHW.addcmul_(image_RCHW.narrow(dim, start, length), tap_R111)
    return sum_RCHW


def _gaussians(sigma_px_R: Tensor) -> Tensor:
    """Kernels [R,T] of sum 1, 0 beyond each one's own support; T is the largest support."""
    radius_R = (3 * sigma_px_R).ceil()
    largest = int(radius_R.max())
    offset_T = torch.arange(-largest, largest + 1)
    exponent_RT = -(offset_T**2) / (2 * sigma_px_R[:, None] ** 2)
    return exponent_RT.masked_fill(offset_T.abs() > radius_R[:, None], -math.inf).softmax(dim=1)


def _grey(image_BCHW: Tensor) -> Tensor:
    red_BHW, green_BHW, blue_BHW = image_BCHW.unbind(dim=1)
    return red_BHW.mul(LUMA[0]).add_(green_BHW, alpha=LUMA[1]).add_(blue_BHW, alpha=LUMA[2])[:, None]


def _take(view_BCHW: Tensor, chosen_B: Tensor) -> Tensor:
    """The chosen rows, which the CPU knows: no index has to reach the device."""
    return torch.stack([image_CHW for image_CHW, chosen in zip(view_BCHW, chosen_B.tolist(), strict=True) if chosen])


def _put(view_BCHW: Tensor, chosen_B: Tensor, image_RCHW: Tensor) -> None:
    """Rows back to where `_take` took them."""
    old = [image_CHW for image_CHW, chosen in zip(view_BCHW, chosen_B.tolist(), strict=True) if chosen]
    torch._foreach_copy_(old, list(image_RCHW))


def _on(tensor: Tensor, where: Tensor) -> Tensor:
    """A small tensor of the CPU on the device of another, without waiting for the device."""
    return tensor.to(where.device, non_blocking=True)
