"""Drawing images for validation."""

from itertools import pairwise

import numpy as np
import pytest

from trainer.data.imports.output.draw_splits import CONSECUTIVE, SEQUENCES, SINGLE, draw_val, sequence

ALL = np.array([True, True])


def test_whole_sequences_are_drawn_and_their_unlabelled_frames_do_not_train() -> None:
    labelled = {f"video{video}_frame_{frame:04}": ALL for video in "abcde" for frame in range(0, 40, 10)}
    unlabelled = [f"video{video}_frame_{frame:04}" for video in "abcdef" for frame in (5, 25)]
    drawn = draw_val(labelled, unlabelled, 0.2, seed=1)
    assert drawn.rule == SEQUENCES
    assert len(drawn.val) == 4
    (video,) = {name[:6] for name in drawn.val}
    assert drawn.left_out == {f"{video}_frame_0005", f"{video}_frame_0025"}
    assert drawn == draw_val(labelled, unlabelled, 0.2, seed=1)
    assert len({draw_val(labelled, unlabelled, 0.2, seed).val for seed in range(10)}) > 1


def test_runs_of_one_sequence_are_drawn_with_the_frames_between() -> None:
    labelled = {f"frame_{frame}": ALL for frame in range(0, 300, 10)}
    unlabelled = [f"frame_{frame}" for frame in range(5, 300, 10)]
    drawn = draw_val(labelled, unlabelled, 0.2, seed=0)
    assert drawn.rule == CONSECUTIVE
    numbers = sorted(int(name.removeprefix("frame_")) for name in drawn.val)
    assert len(numbers) == 6
    neighbours = [first + 5 for first, second in pairwise(numbers) if second - first == 10]
    assert drawn.left_out == {f"frame_{number}" for number in neighbours}
    assert neighbours


def test_names_without_a_sequence_are_drawn_singly() -> None:
    drawn = draw_val(dict.fromkeys(("oak", "elm", "fir", "yew", "ash"), ALL), ["box"], 0.4, seed=0)
    assert (drawn.rule, len(drawn.val), drawn.left_out) == (SINGLE, 2, frozenset())


def test_both_parts_show_all_classes_if_they_can() -> None:
    first, second = np.array([True, False]), np.array([False, True])
    labelled = {f"{tree}x": first for tree in "abcdefgh"} | {"yx": second, "zx": second}
    for seed in range(5):
        val = draw_val(labelled, [], 0.2, seed).val
        assert len(val & {"yx", "zx"}) == 1


@pytest.mark.parametrize(
    ("images", "share", "drawn"), [(1, 0.2, 0), (2, 0.2, 1), (5, 0.0, 0), (2, 0.99, 1), (6, 0.2, 1)]
)
def test_at_least_one_image_remains_in_each_part(images: int, share: float, drawn: int) -> None:
    assert len(draw_val({f"IMG_{index}": ALL for index in range(images)}, [], share, seed=0).val) == drawn


@pytest.mark.parametrize(
    ("name", "key", "number"),
    [
        ("day1/IMG_0042", "day1/IMG_#", 42),
        ("a_jpg.rf.0f9c2", "a_jpg", -1),
        ("IMG_7_jpg.rf.0f9c2", "IMG_#_jpg", 7),
        ("7", "#", 7),
        ("oak", "oak", -1),
    ],
)
def test_sequence_of_a_name(name: str, key: str, number: int) -> None:
    assert sequence(name) == (key, number)
