"""Reference training steps of the papers: one view and one image at a time, one student forward pass per view.

They share only the random draws with the methods that are tested against them.
"""

# B labelled images, U unlabelled images, C channels, K classes, H W pixels

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor
from torchvision.transforms.v2 import functional as V  # noqa: N812 (short for vision)

from trainer.config import Recipe
from trainer.data.batches.loaders import LabelledBatch, UnlabelledBatch
from trainer.data.batches.photometric import Photometric, draw_photometric
from trainer.methods.channel_dropout import channel_masks, random_mask
from trainer.methods.cutmix import draw_boxes
from trainer.models.segmenter import Segmenter

IGNORE = 255


def strong_image(image_CHW: Tensor, drawn: Photometric, index: int) -> Tensor:
    """Augment one image with torchvision's functions."""
    if drawn.jitter_B[index]:
        for operation in drawn.order_B4[index].tolist():
            if operation == 0:
                image_CHW = V.adjust_brightness(image_CHW, float(drawn.brightness_B[index]))
            elif operation == 1:
                image_CHW = V.adjust_contrast(image_CHW, float(drawn.contrast_B[index]))
            elif operation == 2:
                image_CHW = V.adjust_saturation(image_CHW, float(drawn.saturation_B[index]))
            else:
                image_CHW = V.adjust_hue(image_CHW, float(drawn.hue_B[index]))
    if drawn.grey_B[index]:
        image_CHW = V.rgb_to_grayscale(image_CHW, num_output_channels=3)
    if drawn.blur_B[index]:
        sigma_px = float(drawn.sigma_px_B[index])
        image_CHW = V.gaussian_blur(image_CHW, [2 * math.ceil(3 * sigma_px) + 1] * 2, [sigma_px] * 2)
    return image_CHW


def cutmix(tensor: Tensor, box_U4: Tensor) -> Tensor:
    """CutMix by slices: each image gets its box from the previous image."""
    mixed = tensor.clone()
    for index, (top, left, bottom, right) in enumerate(box_U4.tolist()):
        mixed[index, ..., top:bottom, left:right] = tensor[index - 1, ..., top:bottom, left:right]
    return mixed


def labelled_loss(logits_BKHW: Tensor, mask_BHW: Tensor, class_weights_K: Tensor | None = None) -> Tensor:
    """The mean over the labelled pixels."""
    return F.cross_entropy(logits_BKHW, mask_BHW, weight=class_weights_K, ignore_index=IGNORE)


def consistency_loss(logits_UKHW: Tensor, target: tuple[Tensor, Tensor, Tensor], threshold: float) -> Tensor:
    """The sum over confident pixels, divided by the number of pixels inside the image."""
    label_UHW, confidence_UHW, inside_UHW = target
    loss_UHW = F.cross_entropy(logits_UKHW, label_UHW, reduction="none")
    return (loss_UHW * ((confidence_UHW >= threshold) & inside_UHW)).sum() / inside_UHW.sum()


def published_loss(
    student: Segmenter,
    teacher: Segmenter,
    labelled: LabelledBatch,
    unlabelled: UnlabelledBatch,
    *,
    recipe: Recipe,
    generator: torch.Generator,
    class_weights_K: Tensor | None = None,
) -> Tensor:
    """The total loss of one step of the recipe's method."""
    loss = labelled_loss(student(_float(labelled.image_BHWC)), labelled.mask_BHW, class_weights_K)
    if recipe.method == "supervised":
        return loss
    weak_UCHW = _float(unlabelled.image_BHWC)
    with torch.no_grad():
        confidence_UHW, label_UHW = teacher(weak_UCHW).softmax(dim=1).max(dim=1)
    settings, images = recipe.unimatch, len(weak_UCHW)

    shares = {"fixmatch": [1.0], "unimatch_v1": [0.25, 0.25], "unimatch_v2": [1 / settings.streams] * settings.streams}
    drawn = draw_photometric(len(shares[recipe.method]) * images, generator)
    boxes = draw_boxes(len(drawn.jitter_B), (label_UHW.shape[1], label_UHW.shape[2]), 0.5, generator).view(
        -1, images, 4
    )
    dropouts = _dropouts(recipe, student, generator, images)
    for stream, share in enumerate(shares[recipe.method]):
        strong_UCHW = torch.stack(
            [strong_image(image_CHW, drawn, stream * images + index) for index, image_CHW in enumerate(weak_UCHW)]
        )
        logits_UKHW = student(cutmix(strong_UCHW, boxes[stream]), *dropouts[stream])
        mixed = (
            cutmix(label_UHW, boxes[stream]),
            cutmix(confidence_UHW, boxes[stream]),
            cutmix(unlabelled.inside_BHW, boxes[stream]),
        )
        loss_u = consistency_loss(logits_UKHW, mixed, settings.fixed_threshold)
        loss = loss + settings.unlabelled_weight * share * loss_u
    if recipe.method == "unimatch_v1":
        target = (label_UHW, confidence_UHW, unlabelled.inside_BHW)
        loss_u = consistency_loss(student(weak_UCHW, *dropouts[2]), target, settings.fixed_threshold)
        loss = loss + settings.unlabelled_weight * 0.5 * loss_u
    return loss / 2


def _dropouts(
    recipe: Recipe, student: Segmenter, generator: torch.Generator, images: int
) -> list[tuple[Sequence[Tensor] | None, Tensor | None]]:
    """The dropout arguments of each stream's forward pass."""
    settings, channels = recipe.unimatch, student.encoder.channels
    no_dropout: tuple[Sequence[Tensor] | None, Tensor | None] = (None, None)
    if recipe.method == "unimatch_v1":
        masks = [random_mask((images, width), settings.dropout_probability, generator) for width in channels]
        return [no_dropout, no_dropout, (masks, None)]
    if recipe.method == "fixmatch" or settings.dropout == "none":
        return [no_dropout, no_dropout]
    at_head = settings.dropout_place == "head"
    views = channel_masks(
        settings.dropout,
        images,
        (student.head.features,) if at_head else channels,
        probability=settings.dropout_probability,
        undropped_fraction=settings.undropped_fraction,
        generator=generator,
    )
    return [(None, view[0]) if at_head else (view, None) for view in views]


def _float(image_BHWC: Tensor) -> Tensor:
    return torch.stack([image_HWC.permute(2, 0, 1).float() / 255 for image_HWC in image_BHWC])
