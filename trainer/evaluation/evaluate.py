"""Evaluation: predict every image of a split as the service would, and compare with its mask."""

from collections.abc import Iterable

import torch
from torch.utils.data import DataLoader, Dataset

from trainer.data.dataset import Sample, SegmentationDataset
from trainer.metrics import Scores, confusion, scores
from trainer.models.predictor import MaskPredictor
from trainer.models.segmenter import Segmenter


class EvalPairs(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Whole photographs uint8 [H,W,3] and masks int64 [H,W], as they are on disk."""

    def __init__(self, dataset: SegmentationDataset, samples: tuple[Sample, ...]) -> None:
        self._dataset, self._samples = dataset, samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image_HWC, mask_HW = self._dataset.read_pair(self._samples[index])
        return torch.from_numpy(image_HWC.copy()), torch.from_numpy(mask_HW)


@torch.inference_mode()
def evaluate(
    model: Segmenter, dataset: SegmentationDataset, samples: tuple[Sample, ...], *, long_side: int = 0, workers: int = 0
) -> Scores:
    """Scores of a model in eval mode on `samples`, each counted once at its own size.

    Args:
        model: on any device.
        dataset: where the samples are.
        samples: labelled samples.
        long_side: the recipe's inference.long_side.
        workers: processes that decode.

    Raises:
        ImageError: a photograph or a mask cannot be used.
    """
    predictor = MaskPredictor(model, long_side).eval()
    device = next(model.parameters()).device
    classes, ignore_index = len(dataset.taxonomy), dataset.taxonomy.ignore_index
    confusion_KK = torch.zeros((classes, classes), dtype=torch.int64, device=device)
    # Photographs differ in size, so there is one a batch.
    pairs: Iterable[tuple[torch.Tensor, torch.Tensor]] = DataLoader(
        EvalPairs(dataset, samples), batch_size=None, num_workers=workers
    )
    for image_HWC, mask_HW in pairs:
        prediction_1HW, _ = predictor(image_HWC[None].to(device))
        confusion_KK += confusion(prediction_1HW[0], mask_HW.to(device), classes, ignore_index)
    return scores(confusion_KK.cpu(), dataset.taxonomy.names, len(samples))
