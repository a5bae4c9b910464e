"""FixMatch (arXiv 2001.07685), as UniMatch V2 has it for segmentation: one strong view, labelled by the teacher."""

from trainer.data.loaders import LabelledBatch, UnlabelledBatch
from trainer.methods.consistency import strong_streams, student_batch, weak_view
from trainer.methods.context import Context
from trainer.methods.student_batch import StudentBatch


def fixmatch(labelled: LabelledBatch, unlabelled: UnlabelledBatch | None, context: Context) -> StudentBatch:
    """One step: the labelled images and a strong view of each unlabelled one, nothing dropped."""
    streams = strong_streams(weak_view(unlabelled, context), (1.0,), context)
    return student_batch(labelled, streams, context)
