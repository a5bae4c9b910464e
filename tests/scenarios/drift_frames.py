"""Who sees which photographs in the drift scenario."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tests.scenarios.frames import Frame, draw_groups, groups, read_frames, without

SECONDS = 5
"""Length of a stretch of video: stretches, not frames, are divided, so that parts do not show the same scene."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftFrames:
    """Disjoint parts of the data set; frames of one second apart."""

    labelled: list[Frame]
    """Of the first sequence: the only labels for training."""
    val: list[Frame]
    """Of the first sequence: the labels for the gate."""
    usual: list[Frame]
    """Of the first sequence, without labels: every third frame, so that they are like the labelled ones."""
    new: list[Frame]
    """Of the other sequences, without labels, both in turn."""
    new_val: list[Frame]
    """Of the other sequences: labels for the gate only, if it cannot decide without. A quarter of the stretches."""
    held_out: list[Frame]
    """Of the other sequences: the service never sees these labels. Another quarter."""


def divide(data: Path, first: str, labelled_share: float) -> DriftFrames:
    """Divide the frames; `labelled_share` (0..1) of the stretches of the first sequence are for training."""
    frames = read_frames(data)
    own = [frame for frame in frames if frame.sequence == first]
    usual = own[::3]
    labelled = draw_groups(without(own, usual), seconds=SECONDS, share=labelled_share, seed=0)
    others = [frame for frame in frames if frame.sequence != first]
    quarters: list[list[Frame]] = [[], [], [], []]
    for number, stretch in enumerate(groups(others, SECONDS).values()):
        quarters[number % 4].extend(stretch)
    return DriftFrames(
        labelled=labelled,
        val=without(own, [*usual, *labelled]),
        usual=usual,
        new=in_turn([*quarters[0], *quarters[2]]),
        new_val=quarters[1],
        held_out=quarters[3],
    )


def in_turn(frames: Collection[Frame]) -> list[Frame]:
    """Mix the sequences evenly, each in its order."""
    by_sequence = {name: [f for f in frames if f.sequence == name] for name in {f.sequence for f in frames}}
    place = {frame: (k + 0.5) / len(own) for own in by_sequence.values() for k, frame in enumerate(own)}
    return sorted(frames, key=lambda frame: (place[frame], frame.name))
