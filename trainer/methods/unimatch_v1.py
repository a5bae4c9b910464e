"""UniMatch: Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation (arXiv 2208.09910).

Two strong views, and the weak view with perturbed features: channel dropout on each encoder map. With an EMA teacher,
as in the comparison of UniMatch V2 (arXiv 2410.10777).

Deviation: the authors take CutMix partners from a second unlabelled batch; here, as in UniMatch V2, from the same one.
"""

from trainer.data.batches.loaders import LabelledBatch, UnlabelledBatch
from trainer.methods.channel_dropout import random_mask
from trainer.methods.consistency import channel_factors, join_streams, label_weak_view, strong_streams, weak_stream
from trainer.methods.interface import StepContext, StudentBatch


def unimatch_v1(labelled: LabelledBatch, unlabelled: UnlabelledBatch | None, context: StepContext) -> StudentBatch:
    """Student batch: labelled images, two strong views (1/4 of the unlabelled loss each), perturbed features (1/2)."""
    recipe, weak = context.recipe, label_weak_view(unlabelled, context)
    streams = [*strong_streams(weak, (0.25, 0.25), context), weak_stream(weak, 0.5, context)]
    masks = [
        random_mask((recipe.train.batch_unlabelled, width), recipe.unimatch.dropout_probability, context.generator)
        for width in context.channels
    ]
    device, count = weak.image_UCHW.device, len(labelled.image_BHWC)
    dropout = tuple(channel_factors(count, (None, None, mask), context, device) for mask in masks)
    return join_streams(labelled, streams, context, dropout=dropout)
