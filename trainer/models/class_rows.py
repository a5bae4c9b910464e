"""The last layer for another list of classes: rows of known classes are carried over, those of new classes start low.

A row is the weights and the bias of one class; its logit at a pixel is w·f + b for the pixel's features f. Three facts
about the mean of logits l_1..l_K (Jensen's inequality) give values that need no data:

    mean(l) <= max(l)                       a row that is the mean of all rows wins nowhere
    exp(mean(l)) <= sum(exp(l)) / K         and its probability among them is at most 1 / (K + 1)
    mean(l) + log(n) <= log(sum(exp(l)))    of n of them: a linear lower bound of their union's logit, exact if equal

Adding one vector to all rows changes no probability. The mean moves with it; where random rows or zeros stand among
trained logits is chance.
"""

# K classes of the checkpoint, N classes of the new list, D features

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def carry_over(row_KD: Tensor, bias_K: Tensor, sources: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows and biases of a new list of classes, float [N,...] and [N], from those of a checkpoint.

    Args:
        row_KD: float [K,...], a row per class of the checkpoint.
        bias_K: float [K].
        sources: for each new class the ids of its classes in the checkpoint: one is copied, several are averaged, and
            none is a class that starts fresh.

    A merged class gets the mean of its rows and the bias log(n) more: where its n parts are equally likely it has their
    probability, and it never has more. Each of n fresh classes gets the mean of all K rows and the bias log(n) less:
    together they have at most the probability 1 / (K + 1) if no class is dropped, and much less where the checkpoint is
    confident. A pixel that the checkpoint gave to a copied class keeps it.

    A lower start, such as RetinaNet's 1 % (arXiv 1708.02002, section 4.1), would keep more of the confidence, but AdamW
    moves a weight by the learning rate per step, whatever the gradient: short runs would not learn the class.
    """
    fresh = sum(not ids for ids in sources)
    rows, biases = [], []
    for ids in sources:
        chosen = list(ids) or list(range(len(row_KD)))
        rows.append(row_KD[chosen].mean(dim=0))
        biases.append(bias_K[chosen].mean() + math.log(len(ids) or 1 / fresh))
    return torch.stack(rows), torch.stack(biases)
