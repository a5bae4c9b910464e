"""UniMatch: Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation (arXiv 2208.09910).

Two strong views of the image, and the weak view with its features perturbed: channel dropout on each of the encoder's
maps. In the form that UniMatch V2 (arXiv 2410.10777) compares itself with, where the teacher is the moving average.

Deviation: the authors take CutMix's partners from a second unlabelled batch; here, as in UniMatch V2, they are of the
same one.
"""

from trainer.data.loaders import LabelledBatch, UnlabelledBatch
from trainer.methods.channel_dropout import random_mask
from trainer.methods.consistency import own_rows, stacked, strong_streams, student_batch, weak_view
from trainer.methods.context import Context
from trainer.methods.student_batch import StudentBatch


def unimatch_v1(labelled: LabelledBatch, unlabelled: UnlabelledBatch | None, context: Context) -> StudentBatch:
    """One step: labelled images, two strong views (1/4 of the unlabelled loss each), perturbed features (1/2)."""
    recipe, weak = context.recipe, weak_view(unlabelled, context)
    streams = [*strong_streams(weak, (0.25, 0.25), context), own_rows(weak, 0.5, context)]
    masks = [
        random_mask((recipe.train.batch_unlabelled, width), recipe.unimatch.dropout_probability, context.generator)
        for width in context.channels
    ]
    device, count = weak.image_UCHW.device, len(labelled.image_BHWC)
    dropout = tuple(stacked(count, (None, None, mask), context, device) for mask in masks)
    return student_batch(labelled, streams, context, dropout=dropout)
