"""Strong augmentation on the device: colour jitter, greyscale and blur, with random parameters per image.

UniMatch V2 (arXiv 2410.10777), section 5.1. The parameters are on the CPU: no operation waits for the device.
"""

# B batch, R rows that an operation changes, C channels, T kernel taps, H W pixels

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

BRIGHTNESS_OP, CONTRAST_OP, SATURATION_OP, HUE_OP, NO_OP = range(5)
LUMA = (0.2989, 0.587, 0.114)
TINY = torch.finfo(torch.float32).tiny


class Photometric(NamedTuple):
    """Parameters for each image of a batch, on the CPU.

    Attributes:
        jitter_B, grey_B, blur_B: bool, whether the operation applies.
        brightness_B, contrast_B, saturation_B: factors, float.
        hue_B: hue shift as a fraction of the colour circle, float.
        order_B4: int64, order of the four operations: 0 brightness, 1 contrast, 2 saturation, 3 hue.
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
        """Parameters of the images at `index`, int64 on the CPU."""
        return Photometric(*(tensor[index] for tensor in self))


def draw_photometric(batch: int, generator: torch.Generator) -> Photometric:
    """Draw random parameters per image, from a CPU generator."""
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
        # As in torchvision's ColorJitter, which the authors use.
        order_B4=draw[8:].argsort(dim=0).T,
    )


@torch.no_grad()
def strong_view(image_BCHW: Tensor, parameters: Photometric) -> Tensor:
    """Augment a batch, float32 [B,C,H,W] RGB in 0..1; equals torchvision's functions up to rounding.

    Deviation: the authors augment 8-bit images in Pillow, which rounds and clips after each operation and approximates
    the Gaussian by box blurs.
    """
    # No matrix product or convolution, so that autocast does not apply: bf16 would cost most of a grey level.
    view_BCHW = image_BCHW.clone(memory_format=torch.contiguous_format)
    for op_B in torch.where(parameters.jitter_B[:, None], parameters.order_B4, NO_OP).unbind(dim=1):
        _blend(view_BCHW, op_B, parameters)
        _shift_hue(view_BCHW, op_B == HUE_OP, parameters.hue_B)
    if parameters.grey_B.any():
        grey_R1HW = _grey(_take(view_BCHW, parameters.grey_B))
        _put(view_BCHW, parameters.grey_B, grey_R1HW.expand(-1, 3, -1, -1))
    _blur(view_BCHW, parameters.blur_B, parameters.sigma_px_B)
    return view_BCHW


def _blend(view_BCHW: Tensor, op_B: Tensor, parameters: Photometric) -> None:
    """Brightness, contrast or saturation per row: a blend with black, the mean grey or the grey image."""
    factors_4B = torch.stack(
        [parameters.brightness_B, parameters.contrast_B, parameters.saturation_B, torch.ones_like(parameters.hue_B)]
    )
    factor_B = factors_4B.gather(0, op_B.clamp(max=HUE_OP)[None])[0]
    mean_B, grey_B = ((1 - factor_B) * (op_B == op) for op in (CONTRAST_OP, SATURATION_OP))
    shares = _on(torch.stack([factor_B, mean_B, grey_B]), view_BCHW)
    factor_B111, mean_B111, grey_B111 = shares.view(3, -1, 1, 1, 1).unbind()
    grey_B1HW = _grey(view_BCHW)
    other_B1HW = grey_B1HW.mean(dim=(2, 3), keepdim=True) * mean_B111 + grey_B1HW * grey_B111
    view_BCHW.mul_(factor_B111).add_(other_B1HW).clamp_(0, 1)


def _shift_hue(view_BCHW: Tensor, chosen_B: Tensor, shift_B: Tensor) -> None:
    """Shift the hue by the closed form of HSV to RGB, without a case per sixth of the colour circle."""
    if not chosen_B.any():
        return
    image_RCHW = _take(view_BCHW, chosen_B)
    red_RHW, green_RHW, blue_RHW = image_RCHW.unbind(dim=1)
    most_RHW = image_RCHW.amax(dim=1)
    range_RHW = most_RHW - image_RCHW.amin(dim=1)
    # If the range is 0, so are the differences of the channels: any divisor works.
    divisor_RHW = range_RHW.clamp(min=TINY)
    green_most_RHW = (blue_RHW - red_RHW).div_(divisor_RHW).add_(2)
    blue_most_RHW = (red_RHW - green_RHW).div_(divisor_RHW).add_(4)
    hue_RHW = torch.where(most_RHW == green_RHW, green_most_RHW, blue_most_RHW)
    hue_RHW = torch.where(most_RHW == red_RHW, (green_RHW - blue_RHW).div_(divisor_RHW), hue_RHW)
    # In sixths of the circle: a channel is maximal within 1 of its own hue, and minimal beyond 2.
    shift_R = 6 * shift_B[chosen_B]
    shift_RC11 = _on(shift_R[:, None] - torch.tensor([0.0, 2.0, 4.0]), view_BCHW)[:, :, None, None]
    distance_RCHW = hue_RHW[:, None] + shift_RC11
    distance_RCHW.sub_((distance_RCHW / 6).round_(), alpha=6).abs_()
    lost_RCHW = distance_RCHW.sub_(1).clamp_(0, 1).mul_(range_RHW[:, None])
    _put(view_BCHW, chosen_B, most_RHW[:, None] - lost_RCHW)


def _blur(view_BCHW: Tensor, chosen_B: Tensor, sigma_px_B: Tensor) -> None:
    """Separable Gaussian blur as a weighted sum of shifted images, with a kernel of 2 ceil(3 sigma) + 1 taps per row.

    On a CPU it is several times as fast as a grouped convolution, which may also use TF32 on a GPU.
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
    """Kernels [R,T] with sum 1, 0 outside each kernel's own support; T is the largest support."""
    radius_R = (3 * sigma_px_R).ceil()
    largest = int(radius_R.max())
    offset_T = torch.arange(-largest, largest + 1)
    exponent_RT = -(offset_T**2) / (2 * sigma_px_R[:, None] ** 2)
    return exponent_RT.masked_fill(offset_T.abs() > radius_R[:, None], -math.inf).softmax(dim=1)


def _grey(image_BCHW: Tensor) -> Tensor:
    red_BHW, green_BHW, blue_BHW = image_BCHW.unbind(dim=1)
    return red_BHW.mul(LUMA[0]).add_(green_BHW, alpha=LUMA[1]).add_(blue_BHW, alpha=LUMA[2])[:, None]


def _take(view_BCHW: Tensor, chosen_B: Tensor) -> Tensor:
    """Copy of the chosen rows; no index is sent to the device."""
    return torch.stack([image_CHW for image_CHW, chosen in zip(view_BCHW, chosen_B.tolist(), strict=True) if chosen])


def _put(view_BCHW: Tensor, chosen_B: Tensor, image_RCHW: Tensor) -> None:
    old = [image_CHW for image_CHW, chosen in zip(view_BCHW, chosen_B.tolist(), strict=True) if chosen]
    torch._foreach_copy_(old, list(image_RCHW))


def _on(tensor: Tensor, other: Tensor) -> Tensor:
    return tensor.to(other.device, non_blocking=True)
