"""UniMatch V2: Pushing the Limit of Semi-Supervised Semantic Segmentation (arXiv 2410.10777), one training step.

The teacher labels a weak view; the student must say the same about two strong views of the same crop, each of which
sees one half of the encoder's channels.
"""

# B labelled images, U unlabelled images, C channels, K classes, H W pixels

import torch
from torch import Tensor

from trainer.config import UniMatch
from trainer.data.loaders import LabelledBatch, UnlabelledBatch
from trainer.data.photometric import strong_view
from trainer.losses import consistency_loss, labelled_loss
from trainer.methods.complementary_dropout import complementary_masks
from trainer.methods.cutmix import draw_boxes, mix
from trainer.methods.pseudo_labels import PseudoLabels, pseudo_labels
from trainer.models.segmenter import Segmenter, to_float


def unimatch_v2_loss(
    student: Segmenter,
    teacher: Segmenter,
    labelled: LabelledBatch,
    unlabelled: UnlabelledBatch,
    *,
    config: UniMatch,
    ignore_index: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """One step's losses.

    Args:
        student: in train mode; the only one that gets a gradient.
        teacher: its moving average, in eval mode.
        labelled: images and masks.
        unlabelled: weak views of unlabelled images.
        config: the method's settings.
        ignore_index: the mask value that does not count.
        generator: a CPU generator from which every random choice of the step is drawn.

    Returns:
        Scalars: "loss" (to be minimised), "loss_labelled", "loss_unlabelled", and "confident", the part of the
        unlabelled pixels that counted.
    """
    weak_UCHW = to_float(unlabelled.image_BHWC)
    pseudo = pseudo_labels(teacher, weak_UCHW, unlabelled.inside_BHW)
    strong, targets = zip(*(_view(weak_UCHW, pseudo, config, generator) for _ in range(2)), strict=True)
    masks = complementary_masks(
        len(weak_UCHW),
        student.encoder.channels,
        probability=config.dropout_probability,
        undropped_fraction=config.undropped_fraction,
        generator=generator,
    )

    # Deviation: one forward for labelled and strong views, where the authors do two. With the labelled images' mask at
    # 1 it is the same for networks without batch norm, as all of the paper's are, and costs less; batch norm takes its
    # statistics over both together.
    image_BCHW = to_float(labelled.image_BHWC)
    dropout = _joined(len(image_BCHW), *masks, device=image_BCHW.device)
    logits_BKHW, *views_UKHW = student(torch.cat([image_BCHW, *strong]), dropout=dropout).split(
        [len(image_BCHW), len(weak_UCHW), len(weak_UCHW)]
    )

    loss_labelled = labelled_loss(logits_BKHW, labelled.mask_BHW, ignore_index)
    loss_unlabelled = torch.stack(
        [
            consistency_loss(logits_UKHW, *target, threshold=config.confidence_threshold)
            for logits_UKHW, target in zip(views_UKHW, targets, strict=True)
        ]
    ).mean()
    return {
        "loss": (loss_labelled + config.unlabelled_weight * loss_unlabelled) / 2,
        "loss_labelled": loss_labelled,
        "loss_unlabelled": loss_unlabelled,
        "confident": _confident_part(pseudo, config.confidence_threshold),
    }


def _view(
    weak_UCHW: Tensor, pseudo: PseudoLabels, config: UniMatch, generator: torch.Generator
) -> tuple[Tensor, PseudoLabels]:
    """One strong view and what the student must say about it; image, label, confidence and padding are mixed alike."""
    image_UCHW = strong_view(weak_UCHW, generator)
    images, height, width = pseudo.label_BHW.shape
    box_UHW = draw_boxes(images, (height, width), config.cutmix_probability, generator).to(weak_UCHW.device)
    return mix(image_UCHW, box_UHW), PseudoLabels(*(mix(tensor_UHW, box_UHW) for tensor_UHW in pseudo))


def _confident_part(pseudo: PseudoLabels, threshold: float) -> Tensor:
    confident_UHW = (pseudo.confidence_BHW >= threshold) & pseudo.inside_BHW
    return confident_UHW.sum() / pseudo.inside_BHW.sum().clamp(min=1)


def _joined(whole: int, first: list[Tensor], second: list[Tensor], device: torch.device) -> list[Tensor]:
    """Dropout masks of a batch of `whole` undropped images and the two strong views, a [whole+2U,C_i] for each map."""
    return [
        torch.cat([torch.ones(whole, mask_UC.shape[1]), mask_UC, complement_UC]).to(device)
        for mask_UC, complement_UC in zip(first, second, strict=True)
    ]
