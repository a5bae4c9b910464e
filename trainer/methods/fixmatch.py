"""FixMatch (arXiv 2001.07685) for segmentation, as in UniMatch V2: one strong view, labelled by the teacher."""

from trainer.data.batches.loaders import LabelledBatch, UnlabelledBatch
from trainer.methods.consistency import join_streams, label_weak_view, strong_streams
from trainer.methods.interface import StepContext, StudentBatch


def fixmatch(labelled: LabelledBatch, unlabelled: UnlabelledBatch | None, context: StepContext) -> StudentBatch:
    """Student batch: labelled images and one strong view, without dropout."""
    streams = strong_streams(label_weak_view(unlabelled, context), (1.0,), context)
    return join_streams(labelled, streams, context)
