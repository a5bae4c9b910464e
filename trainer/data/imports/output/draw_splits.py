"""Draw the split `val` from the labelled images: whole sequences, or runs of consecutive names.

Frames of one video, or photographs in a row, show almost the same. If one trains and its neighbour validates, the score
says nothing. So names that differ only in their last number form a sequence. With several sequences, whole ones are
drawn; of a single one, runs of consecutive names are. Unlabelled images of a drawn sequence, or between the images of a
drawn run, do not train either.
"""

# N images, K classes, G groups

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

DRAWS = 100
"""Random draws, of which the one is used whose parts show the most classes."""
LEAST_SEQUENCES, LARGEST_SHARE = 4, 0.5
"""Whole sequences are drawn if there are as many, and none has more than this share of the images."""
RUNS = 3
"""Runs that are drawn of a single sequence."""

ROBOFLOW_HASH = re.compile(r"[._]rf\.[0-9a-zA-Z]+$")
"""Roboflow's mark of an augmented copy: copies of one image have equal names before it."""
NUMBER = re.compile(r"^(.*?)(\d+)(\D*)$", re.DOTALL)

Presence = npt.NDArray[np.bool_]
"""Classes that an image's mask shows, [N, K]."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The result.

    Attributes:
        val: drawn names.
        left_out: unlabelled names that are too near to those.
        rule: how they were drawn, as a sentence without a full stop.
    """

    val: frozenset[str]
    left_out: frozenset[str]
    rule: str


def draw_val(
    labelled: Mapping[str, npt.NDArray[np.bool_]], unlabelled: Sequence[str], share: float, seed: int
) -> Drawn:
    """Draw about `share` of the labelled images.

    Args:
        labelled: for each name, which classes its mask shows, bool [K].
        unlabelled: other names.
        share: 0..1; at least one image is drawn, and one is left, if the share is above 0 and two are labelled.
        seed: of the draws.
    """
    names = sorted(labelled, key=_order)
    wanted = min(max(round(share * len(names)), 1), len(names) - 1) if share > 0 else 0
    if wanted < 1:
        return Drawn(frozenset(), frozenset(), "no image is drawn for validation")
    groups_N, rule = _groups(names, wanted)
    drawn_N = _best_draw(groups_N, np.array([labelled[name] for name in names]), wanted, np.random.default_rng(seed))
    val = frozenset(name for name, is_drawn in zip(names, drawn_N, strict=True) if is_drawn)
    return Drawn(val, _too_near(names, val, unlabelled, whole=rule == SEQUENCES), rule)


SEQUENCES = "whole sequences of names were drawn"
CONSECUTIVE = "runs of consecutive names were drawn"
SINGLE = "single images were drawn"


def sequence(name: str) -> tuple[str, int]:
    """The name without its last number, and that number; -1 if it has none."""
    plain = ROBOFLOW_HASH.sub("", name)
    found = NUMBER.match(plain)
    return (f"{found[1]}#{found[3]}", int(found[2])) if found else (plain, -1)


def _order(name: str) -> tuple[str, int, str]:
    return (*sequence(name), name)


def _groups(names: Sequence[str], wanted: int) -> tuple[npt.NDArray[np.int64], str]:
    """The group of each name, [N], and the rule; the names are in order."""
    keys = [sequence(name)[0] for name in names]
    sizes = Counter(keys)
    if max(sizes.values()) == 1:
        return np.arange(len(names)), SINGLE
    if len(sizes) >= LEAST_SEQUENCES and max(sizes.values()) <= LARGEST_SHARE * len(names):
        order = {key: index for index, key in enumerate(sizes)}
        return np.array([order[key] for key in keys]), SEQUENCES
    length = max(1, round(wanted / RUNS))
    groups, previous, count = [], "", 0
    for key in keys:
        count = count + 1 if key == previous else 0
        groups.append(bool(count % length == 0))
        previous = key
    return np.cumsum(groups) - 1, CONSECUTIVE


def _best_draw(
    groups_N: npt.NDArray[np.int64], shown_NK: Presence, wanted: int, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Of many draws, the one with the most classes in both parts, and the number of images nearest to the wanted."""
    sizes_G = np.bincount(groups_N)
    best_N, best = np.zeros(len(groups_N), dtype=np.bool_), (-1, -1, 0)
    for _ in range(DRAWS):
        order_G = rng.permutation(len(sizes_G))
        before_G = np.cumsum(sizes_G[order_G]) - sizes_G[order_G]
        # The last group is one whose half still fits, so that the number is right on average.
        chosen = order_G[before_G + sizes_G[order_G] / 2 <= wanted]
        drawn_N = np.isin(groups_N, chosen if len(chosen) else order_G[:1])
        if drawn_N.all():
            continue
        classes = (int(shown_NK[~drawn_N].any(axis=0).sum()), int(shown_NK[drawn_N].any(axis=0).sum()))
        rank = (*classes, -abs(int(drawn_N.sum()) - wanted))
        if rank > best:
            best_N, best = drawn_N, rank
    return best_N


def _too_near(names: Sequence[str], val: frozenset[str], unlabelled: Sequence[str], *, whole: bool) -> frozenset[str]:
    """Unlabelled images of a drawn sequence; or, in a sequence, between drawn images that follow each other."""
    spans: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for (key, is_drawn), run in groupby(names, lambda name: (sequence(name)[0], name in val)):
        if is_drawn:
            numbers = [sequence(name)[1] for name in run]
            spans[key].append((numbers[0], numbers[-1]))
    return frozenset(
        name
        for name in unlabelled
        for key, number in [sequence(name)]
        if key in spans and (whole or any(first <= number <= last for first, last in spans[key]))
    )
