"""Pseudo-label audit: share and correctness of the teacher's confident labels, per class.

The mask ratio is the share of pixels whose confidence reaches the threshold; the purity is the share of these that are
right. Purity needs true masks: of the unlabelled images if they exist, else of the validation images.
"""

# N images, C channels, K classes, H W pixels

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.config import Recipe
from trainer.data.dataset import Sample, SegmentationDataset
from trainer.evaluation.boundary import count_by_class
from trainer.evaluation.evaluate import in_eval_mode
from trainer.evaluation.inference import most_likely
from trainer.models.segmenter import Segmenter
from trainer.run_data import RunData

LIMIT = 50
"""Maximum number of images: enough pixels for stable shares."""


@dataclass(frozen=True, slots=True)
class ClassAudit:
    """Pseudo-labels of one class: share of all confident pixels, mask ratio and purity; 0..1, None if undefined."""

    share: float
    mask_ratio: float | None
    purity: float | None


@dataclass(frozen=True, slots=True)
class Audit:
    """Pseudo-labels of a run.

    Attributes:
        threshold: the recipe's fixed threshold, also for a run with adaptive ones.
        images: number of unlabelled images.
        mask_ratio, purity: over all classes, 0..1; None if undefined.
        truth: source of the true masks.
        truth_images: number of images with true masks.
    """

    threshold: float
    images: int
    mask_ratio: float | None
    purity: float | None
    truth: str
    truth_images: int
    classes: dict[str, ClassAudit]


@torch.inference_mode()
def audit_pseudo_labels(teacher: Segmenter, recipe: Recipe, data: RunData, limit: int = LIMIT) -> Audit:
    """Audit the teacher's labels of up to `limit` unlabelled images by the recipe's inference rule. Raises ImageError.

    Deviation: the student trains on random crops; the audit uses whole images, which people can check.
    """
    samples, dataset = evenly_spaced(data.unlabelled, limit), data.unlabelled_dataset
    same_classes = dataset.taxonomy.names == data.dataset.taxonomy.names
    with_truth = tuple(sample for sample in samples if same_classes and dataset.has_mask(sample))
    without_truth = tuple(sample for sample in samples if sample not in with_truth)
    with in_eval_mode(teacher):
        counts_4K = _count_pixels(teacher, dataset, without_truth, recipe, use_truth=False)
        counts_4K += _count_pixels(teacher, dataset, with_truth, recipe)
        right_2K, source = counts_4K[2:], "the masks of the unlabelled images, which training never reads"
        if not with_truth:
            with_truth, source = evenly_spaced(data.val, limit), "the validation images"
            right_2K = _count_pixels(teacher, data.dataset, with_truth, recipe)[2:]
    confident_2K = counts_4K[:2]
    share_K = confident_2K[0] / confident_2K[0].sum().clamp(min=1)
    classes = zip(data.dataset.taxonomy.names, share_K.tolist(), _ratios(confident_2K), _ratios(right_2K), strict=True)
    return Audit(
        threshold=recipe.unimatch.fixed_threshold,
        images=len(samples),
        mask_ratio=_ratios(confident_2K.sum(1, keepdim=True))[0],
        purity=_ratios(right_2K.sum(1, keepdim=True))[0],
        truth=source,
        truth_images=len(with_truth),
        classes={name: ClassAudit(share, ratio, purity) for name, share, ratio, purity in classes},
    )


def evenly_spaced(samples: Sequence[Sample], limit: int) -> tuple[Sample, ...]:
    """At most `limit` of the samples, evenly spaced: consecutive ones are often frames of one video."""
    count = min(len(samples), limit)
    return tuple(samples[index * len(samples) // count] for index in range(count))


def _count_pixels(
    teacher: Segmenter, dataset: SegmentationDataset, samples: Sequence[Sample], recipe: Recipe, use_truth: bool = True
) -> Tensor:
    """Pixels by predicted class, int64 [4,K]: confident; all; confident and right; confident with known truth."""
    device = next(teacher.parameters()).device
    counts_4K = torch.zeros((4, teacher.classes), dtype=torch.int64)
    for sample in samples:
        image_HWC, truth_HW = dataset.read_pair(sample) if use_truth else (dataset.read(sample), None)
        image_NHWC = torch.from_numpy(image_HWC.copy())[None].to(device)
        label_NHW, confidence_NHW = most_likely(teacher, image_NHWC, recipe.inference)
        label_HW = label_NHW[0].cpu()
        confident_HW = (confidence_NHW[0] >= recipe.unimatch.fixed_threshold).cpu()
        right_HW = known_HW = torch.zeros_like(confident_HW)
        if truth_HW is not None:
            known_HW = confident_HW & torch.from_numpy(truth_HW != dataset.taxonomy.ignore_index)
            right_HW = known_HW & (label_HW == torch.from_numpy(truth_HW.copy()))
        selections = (confident_HW, torch.ones_like(confident_HW), right_HW, known_HW)
        counts_4K += torch.stack([count_by_class(label_HW, chosen_HW, teacher.classes) for chosen_HW in selections])
    return counts_4K


def _ratios(counts_2K: Tensor) -> list[float | None]:
    return [part / whole if whole else None for part, whole in counts_2K.T.tolist()]
