"""Evaluation: predict images by the recipe's inference rule, and compare them with their masks."""

# H W pixels, C channels, K classes, M bins of confidence

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from trainer.config import Inference
from trainer.data.batches.loaders import detach_from_group_signals
from trainer.data.dataset import Sample, SegmentationDataset
from trainer.evaluation.boundary import boundary_counts
from trainer.evaluation.calibration import BINS, calibration_sums
from trainer.evaluation.inference import most_likely
from trainer.evaluation.metrics import Scores, confusion, scores
from trainer.models.segmenter import Segmenter

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
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Scores of a model on `samples`, each at its own size.

    The model may be on any device; its train/eval mode is restored. Process r of n gets the shard (r, n), every n-th
    sample; `total` sums the counts over the processes and is called once. Without `inference`, images are predicted
    whole. `full` adds boundary IoU and calibration, `workers` are decoding processes, and `progress` is called with
    (images done, images in this process).

    Raises ImageError, and RecipeError if the window does not fit the encoder.
    """
    device = next(model.parameters()).device
    counts = _Counts(len(dataset.taxonomy), dataset.taxonomy.ignore_index, full, device)
    own = samples[shard[0] :: shard[1]]
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
    return counts.scores(dataset.taxonomy.names, len(own), total)


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
    def __init__(self, classes: int, ignore_index: int, full: bool, device: torch.device) -> None:
        self._classes, self._ignore_index, self._full = classes, ignore_index, full
        self._confusion_KK = torch.zeros((classes, classes), dtype=torch.int64, device=device)
        self._boundary_2K = torch.zeros((2, classes), dtype=torch.int64, device=device)
        self._calibration_3M = torch.zeros((3, BINS), dtype=torch.float64, device=device)

    def add(self, mask_HW: Tensor, confidence_HW: Tensor, truth_HW: Tensor) -> None:
        self._confusion_KK += confusion(mask_HW, truth_HW, self._classes, self._ignore_index)
        if self._full:
            self._boundary_2K += boundary_counts(mask_HW, truth_HW, self._classes, self._ignore_index)
            right_HW, known_HW = mask_HW == truth_HW, truth_HW != self._ignore_index
            self._calibration_3M += calibration_sums(confidence_HW, right_HW, known_HW)

    def scores(self, names: tuple[str, ...], images: int, total: SumOverProcesses) -> Scores:
        own_images = torch.tensor([images], device=self._confusion_KK.device)
        counts = (self._confusion_KK, self._boundary_2K, self._calibration_3M, own_images)
        # Float64 is exact for integers up to 9e15 pixels.
        added = total(torch.cat([count.flatten().double() for count in counts])).cpu()
        parts = torch.split(added, [count.numel() for count in counts])
        confusion_KK, boundary_2K, calibration_3M, all_images = (
            part.reshape(count.shape) for part, count in zip(parts, counts, strict=True)
        )
        measured = {"boundary_2K": boundary_2K, "calibration_3M": calibration_3M} if self._full else {}
        return scores(confusion_KK.long(), names, int(all_images), **measured)
