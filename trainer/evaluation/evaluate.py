"""Evaluation: predict images by the recipe's inference rule, and compare them with their masks."""

# N images, H W pixels, C channels, K classes, M bins of confidence; 3 = right, true and predicted pixels

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from trainer.config import Inference
from trainer.data.batches.loaders import detach_from_group_signals
from trainer.data.dataset import Sample, SegmentationDataset
from trainer.evaluation.boundary import boundary_counts
from trainer.evaluation.calibration import BINS, calibration_sums
from trainer.evaluation.inference import most_likely
from trainer.evaluation.interval import miou_interval
from trainer.evaluation.metrics import Scores, confusion, scores
from trainer.models.segmenter import Segmenter
from trainer.taxonomy import Taxonomy

SumOverProcesses = Callable[[Tensor], Tensor]
"""All-reduce: the sum of a float64 tensor."""


class EvalPairs(Dataset[tuple[Tensor, Tensor]]):
    """Images uint8 [H,W,3] and masks int64 [H,W] at their own size."""

    def __init__(self, dataset: SegmentationDataset, samples: tuple[Sample, ...]) -> None:
        self._dataset, self._samples = dataset, samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image_HWC, mask_HW = self._dataset.read_pair(self._samples[index])
        return torch.from_numpy(image_HWC.copy()), torch.from_numpy(mask_HW)


@torch.inference_mode()
def evaluate(
    model: Segmenter,
    dataset: SegmentationDataset,
    samples: tuple[Sample, ...],
    *,
    inference: Inference | None = None,
    workers: int = 0,
    shard: tuple[int, int] = (0, 1),
    total: SumOverProcesses = lambda counts: counts,
    full: bool = True,
    threshold: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Scores of a model on `samples`, each at its own size.

    The model may be on any device; its train/eval mode is restored. Process r of n gets the shard (r, n), every n-th
    sample; `total` sums the counts over the processes and is called once. Without `inference`, images are predicted
    whole. `full` adds boundary IoU, calibration and an interval, `threshold` the reliability of the pixels with at
    least this confidence, 0..1. `workers` are decoding processes, and `progress` is called with (images done, images in
    this process).

    Raises ImageError, and RecipeError if the window does not fit the encoder.
    """
    device = next(model.parameters()).device
    part = slice(shard[0], None, shard[1])
    counts = _Counts(dataset.taxonomy, device, shard=part, images=len(samples), full=full, threshold=threshold)
    own = samples[part]
    pairs: Iterable[tuple[Tensor, Tensor]] = DataLoader(
        EvalPairs(dataset, own),
        batch_size=None,  # images differ in size
        num_workers=workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=detach_from_group_signals,
    )
    with in_eval_mode(model):
        for done, (image_HWC, truth_HW) in enumerate(pairs, 1):
            image_NHWC = image_HWC.to(device, non_blocking=True)[None]
            mask_NHW, confidence_NHW = most_likely(model, image_NHWC, inference or Inference())
            counts.add(mask_NHW[0], confidence_NHW[0], truth_HW.to(device, non_blocking=True))
            if progress:
                progress(done, len(own))
    return counts.scores(total)


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, then restore the mode of each submodule."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


class _Counts:
    """Counts over the images of this process."""

    def __init__(
        self,
        taxonomy: Taxonomy,
        device: torch.device,
        *,
        shard: slice,
        images: int,
        full: bool,
        threshold: float | None,
    ) -> None:
        self._taxonomy, self._full, self._threshold = taxonomy, full, threshold
        classes = len(taxonomy)
        self._confusion_KK = torch.zeros((classes, classes), dtype=torch.int64, device=device)
        self._boundary_2K = torch.zeros((2, classes), dtype=torch.int64, device=device)
        self._confident_2 = torch.zeros(2, dtype=torch.int64, device=device)
        self._calibration_3M = torch.zeros((3, BINS), dtype=torch.float64, device=device)
        self._each_N3K = torch.zeros((images if full else 0, 3, classes), dtype=torch.int64, device=device)
        self._own, self._done = range(images)[shard], 0

    def add(self, mask_HW: Tensor, confidence_HW: Tensor, truth_HW: Tensor) -> None:
        classes, ignore_index = len(self._taxonomy), self._taxonomy.ignore_index
        image_KK = confusion(mask_HW, truth_HW, classes, ignore_index)
        self._confusion_KK += image_KK
        right_HW, known_HW = mask_HW == truth_HW, truth_HW != ignore_index
        if self._threshold is not None:
            confident_HW = (confidence_HW >= self._threshold) & known_HW
            self._confident_2 += torch.stack([confident_HW.sum(), (confident_HW & right_HW).sum()])
        if self._full:
            self._boundary_2K += boundary_counts(mask_HW, truth_HW, classes, ignore_index)
            self._calibration_3M += calibration_sums(confidence_HW, right_HW, known_HW)
            parts = (image_KK.diagonal(), image_KK.sum(1), image_KK.sum(0))
            self._each_N3K[self._own[self._done]] = torch.stack(parts)
        self._done += 1

    def scores(self, total: SumOverProcesses) -> Scores:
        own_images = torch.tensor([self._done], device=self._confusion_KK.device)
        counts = (self._confusion_KK, self._boundary_2K, self._calibration_3M, self._confident_2, self._each_N3K)
        # Float64 is exact for integers up to 9e15 pixels.
        added = total(torch.cat([count.flatten().double() for count in (*counts, own_images)])).cpu()
        *parts, images = torch.split(added, [*(count.numel() for count in counts), 1])
        confusion_KK, boundary_2K, calibration_3M, confident_2, each_N3K = (
            part.reshape(count.shape) for part, count in zip(parts, counts, strict=True)
        )
        measured = {"boundary_2K": boundary_2K, "calibration_3M": calibration_3M} if self._full else {}
        found = scores(confusion_KK.long(), self._taxonomy.names, int(images), **measured)
        if self._full:
            found = replace(found, miou_interval=miou_interval(each_N3K))
        if self._threshold is None:
            return found
        confident, right = confident_2.long().tolist()
        return replace(found, confident=confident, reliability=right / confident if confident else None)
