"""Pictures of the report, as data URLs: validation images with truth and prediction, and the confusion matrix."""

# H W pixels, K classes, 3 = RGB

import base64
import io
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from trainer.config import Inference
from trainer.data.dataset import Sample, SegmentationDataset
from trainer.evaluation.audit import evenly_spaced
from trainer.evaluation.evaluate import in_eval_mode
from trainer.evaluation.inference import most_likely
from trainer.evaluation.metrics import confusion, scores
from trainer.models.segmenter import Segmenter

RANKED, PER_GROUP = 60, 3
"""Images ranked, and images shown per group."""
SIDE = 300
"""Long side of a picture, in pixels."""
WRONG, UNLABELLED = (225, 29, 72), (128, 128, 128)

DARK, LIGHT = (30, 64, 175), (241, 245, 249)
"""Colours of the shares 1 and 0 in the confusion matrix."""

Pixels = npt.NDArray[np.uint8]
Prediction = tuple[Pixels, npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Image [H,W,3], truth [H,W] and prediction [H,W]."""
Ranked = tuple[tuple[float, str], str, Sample]
"""mIoU and its number of classes, name and sample of an image."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of the page: data URL and description."""

    url: str
    description: str


@dataclass(frozen=True, slots=True)
class Row:
    """One validation image: "worst", "median" or "best", and its mIoU over the classes in its truth, 0..1.

    A few stray pixels of another class would halve an mIoU that counts every predicted class.
    """

    group: str
    name: str
    miou: float
    miou_over: str
    pictures: tuple[Picture, ...]


@torch.inference_mode()
def gallery(
    model: Segmenter, dataset: SegmentationDataset, samples: tuple[Sample, ...], inference: Inference
) -> tuple[int, tuple[Row, ...]]:
    """Number of ranked images, and the worst, median and best of them. Raises ImageError."""
    candidates = evenly_spaced(samples, RANKED)
    with in_eval_mode(model):
        predict = partial(_predict, model, dataset, inference)
        ranked = sorted((_miou(predict(sample), dataset), sample.name, sample) for sample in candidates)
        rows = tuple(
            Row(group, name, *ranking, _pictures(predict(sample), dataset))
            for group, chosen in _choose(ranked).items()
            for ranking, name, sample in chosen
        )
    return len(candidates), rows


def heatmap(share_KK: npt.NDArray[np.float64]) -> str:
    """Confusion matrix of shares 0..1 as a data URL: rows are the truth, darker = larger share of the row."""
    weight_KK1 = np.sqrt(share_KK)[..., None]  # the square root makes small shares visible
    pixels_KK3 = np.array(LIGHT) * (1 - weight_KK1) + np.array(DARK) * weight_KK1
    side = max(1, 720 // len(pixels_KK3)) * len(pixels_KK3)
    return _url(Image.fromarray(pixels_KK3.astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST), "png")


def _choose(ranked: list[Ranked]) -> dict[str, list[Ranked]]:
    count = min(PER_GROUP, max(1, len(ranked) // 3))
    if len(ranked) < 3:
        return {"best": ranked[::-1]}
    middle = (len(ranked) - count) // 2
    return {"worst": ranked[:count], "median": ranked[middle : middle + count], "best": ranked[-count:][::-1]}


def _miou(prediction: Prediction, dataset: SegmentationDataset) -> tuple[float, str]:
    _, truth_HW, mask_HW = prediction
    taxonomy = dataset.taxonomy
    counts_KK = confusion(torch.from_numpy(mask_HW), torch.from_numpy(truth_HW), len(taxonomy), taxonomy.ignore_index)
    found = scores(counts_KK, taxonomy.names, 1)
    return found.miou_truth_classes, found.miou_truth_classes_over


def _pictures(prediction: Prediction, dataset: SegmentationDataset) -> tuple[Picture, ...]:
    image_HW3, truth_HW, mask_HW = prediction
    known_HW = truth_HW != dataset.taxonomy.ignore_index
    wrong_HW = known_HW & (mask_HW != truth_HW)
    grey_HW = image_HW3.mean(axis=2, keepdims=True)
    faded_HW3 = np.broadcast_to(127 + grey_HW / 2, image_HW3.shape).astype(np.uint8)
    share = wrong_HW.sum() / max(known_HW.sum(), 1)
    errors_HW3 = np.where(wrong_HW[..., None], np.array(WRONG, dtype=np.uint8), faded_HW3)
    return (
        Picture(_jpeg(image_HW3), "image"),
        Picture(_png(_painted(truth_HW, dataset)), f"truth: {_shares(truth_HW, dataset)}"),
        Picture(_png(_painted(mask_HW, dataset)), f"prediction: {_shares(mask_HW, dataset)}"),
        Picture(_jpeg(errors_HW3), f"errors: {share:.1%} of the pixels"),
    )


def _predict(model: Segmenter, dataset: SegmentationDataset, inference: Inference, sample: Sample) -> Prediction:
    image_HW3, truth_HW = dataset.read_pair(sample)
    image_NHW3 = torch.from_numpy(image_HW3.copy())[None].to(next(model.parameters()).device)
    return image_HW3, truth_HW.copy(), most_likely(model, image_NHW3, inference)[0][0].cpu().numpy()


def _painted(ids_HW: npt.NDArray[np.int64], dataset: SegmentationDataset) -> Pixels:
    colors_K3 = np.array([*dataset.taxonomy.colors, UNLABELLED], dtype=np.uint8)
    painted: Pixels = colors_K3[np.where(ids_HW == dataset.taxonomy.ignore_index, len(dataset.taxonomy), ids_HW)]
    return painted


def _shares(ids_HW: npt.NDArray[np.int64], dataset: SegmentationDataset) -> str:
    """The three largest classes: "55% road, 20% sky, 10% tree"."""
    labelled = ids_HW[ids_HW != dataset.taxonomy.ignore_index]
    counts_K = np.bincount(labelled, minlength=len(dataset.taxonomy))
    largest = [int(index) for index in counts_K.argsort()[::-1][:3] if counts_K[index]]
    return ", ".join(f"{counts_K[index] / labelled.size:.0%} {dataset.taxonomy.names[index]}" for index in largest)


def _jpeg(pixels_HW3: Pixels) -> str:
    small = Image.fromarray(pixels_HW3)
    small.thumbnail((SIDE, SIDE))
    return _url(small, "jpeg", quality=85)


def _png(pixels_HW3: Pixels) -> str:
    small = Image.fromarray(pixels_HW3)
    small.thumbnail((SIDE, SIDE), Image.Resampling.NEAREST)  # interpolated colours could be those of another class
    return _url(small, "png")


def _url(image: Image.Image, kind: str, **options: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
