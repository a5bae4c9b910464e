"""Labels only: cross-entropy. The baseline, and the first model of a loop that has no teacher yet."""

from torch import Tensor

from trainer.data.loaders import LabelledBatch
from trainer.losses import labelled_loss
from trainer.models.segmenter import Segmenter, to_float


def supervised_loss(student: Segmenter, labelled: LabelledBatch, *, ignore_index: int) -> dict[str, Tensor]:
    """One step's loss, a scalar under "loss"."""
    logits_BKHW = student(to_float(labelled.image_BHWC))
    return {"loss": labelled_loss(logits_BKHW, labelled.mask_BHW, ignore_index)}
