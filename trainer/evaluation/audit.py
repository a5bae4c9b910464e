"""The pseudo-label audit: what the teacher tells the student, class by class, and how much of it is true.

A pseudo-label counts in training where the teacher's confidence reaches the threshold. The audit asks which part of
each class's pixels does (mask ratio), and which part of those is right (purity). Purity needs the truth: of the
unlabelled images themselves where their masks lie on disk, as in benchmarks, or else of the validation images.
"""

# H W pixels, K classes

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
"""Images that are looked at, evenly spread over the split: their pixels are many, and nothing is learned here."""


@dataclass(frozen=True, slots=True)
class ClassAudit:
    """The pseudo-labels of one class.

    Attributes:
        share: of the confident pixels of all classes, 0..1.
        mask_ratio: confident pixels among those that the teacher gives this class, 0..1; None where it gives none.
        purity: right ones among the confident pixels that have a truth, 0..1; None where there are none.
    """

    share: float
    mask_ratio: float | None
    purity: float | None


@dataclass(frozen=True, slots=True)
class Audit:
    """The pseudo-labels of a run.

    Attributes:
        threshold: the recipe's; thresholds that adapt begin there.
        images: how many unlabelled images were looked at.
        mask_ratio: confident pixels among all, 0..1.
        purity: right ones among the confident pixels that have a truth, 0..1; None without any truth.
        truth: whose truth it is.
        truth_images: how many images with a truth were looked at.
        classes: by name.
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
    """Look at the teacher's labels of up to `limit` unlabelled images: whole, by the recipe's rule of inference.

    Deviation: the student learns from random crops at random scales; whole images are what a person can look up.

    Raises:
        ImageError: an image cannot be read.
    """
    samples, dataset = spread(data.unlabelled, limit), data.unlabelled_dataset
    same_classes = dataset.taxonomy.names == data.dataset.taxonomy.names
    known = tuple(sample for sample in samples if same_classes and dataset.has_mask(sample))
    rest = tuple(sample for sample in samples if sample not in known)
    with in_eval_mode(teacher):
        counts_4K = _look(teacher, dataset, rest, recipe, truth=False) + _look(teacher, dataset, known, recipe)
        right_2K, where = counts_4K[2:], "the masks of the unlabelled images, which training never reads"
        if not known:
            known, where = spread(data.val, limit), "the validation images"
            right_2K = _look(teacher, data.dataset, known, recipe)[2:]
    given_2K = counts_4K[:2]
    shares_K = given_2K[0] / given_2K[0].sum().clamp(min=1)
    each = zip(data.dataset.taxonomy.names, shares_K.tolist(), _parts(given_2K), _parts(right_2K), strict=True)
    return Audit(
        threshold=recipe.unimatch.confidence_threshold,
        images=len(samples),
        mask_ratio=_parts(given_2K.sum(1, keepdim=True))[0],
        purity=_parts(right_2K.sum(1, keepdim=True))[0],
        truth=where,
        truth_images=len(known),
        classes={name: ClassAudit(share, ratio, purity) for name, share, ratio, purity in each},
    )


def spread(samples: Sequence[Sample], limit: int) -> tuple[Sample, ...]:
    """At most `limit` of the samples, evenly spread: neighbours in a list are often frames of one film."""
    count = min(len(samples), limit)
    return tuple(samples[index * len(samples) // count] for index in range(count))


def _look(
    teacher: Segmenter, dataset: SegmentationDataset, samples: Sequence[Sample], recipe: Recipe, *, truth: bool = True
) -> Tensor:
    """Pixels by the class that the teacher gives them, int64 [4,K].

    Returns:
        confident pixels; all pixels; of the confident ones with a truth the right ones; and all of these.
    """
    device = next(teacher.parameters()).device
    counts_4K = torch.zeros((4, teacher.classes), dtype=torch.int64)
    for sample in samples:
        image_HWC, truth_HW = dataset.read_pair(sample) if truth else (dataset.read(sample), None)
        image_NHWC = torch.from_numpy(image_HWC.copy())[None].to(device)
        label_NHW, confidence_NHW = most_likely(teacher, image_NHWC, recipe.inference)
        label_HW, sure_HW = label_NHW[0].cpu(), (confidence_NHW[0] >= recipe.unimatch.confidence_threshold).cpu()
        wanted = [sure_HW, torch.ones_like(sure_HW), torch.zeros_like(sure_HW), torch.zeros_like(sure_HW)]
        if truth_HW is not None:
            known_HW = sure_HW & torch.from_numpy(truth_HW != dataset.taxonomy.ignore_index)
            wanted[2:] = [known_HW & (label_HW == torch.from_numpy(truth_HW.copy())), known_HW]
        counts_4K += torch.stack([count_by_class(label_HW, at_HW, teacher.classes) for at_HW in wanted])
    return counts_4K


def _parts(counts_2K: Tensor) -> list[float | None]:
    return [part / whole if whole else None for part, whole in counts_2K.T.tolist()]
