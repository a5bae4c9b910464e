"""Format results of runs as a Markdown table: mean and standard deviation over seeds, and gain over labels only."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import NamedTuple

BASELINE = "supervised"
NAMES = {
    "supervised": "labels only",
    "fixmatch": "FixMatch",
    "unimatch_v1": "UniMatch V1",
    "unimatch_v2": "UniMatch V2",
}


class Result(NamedTuple):
    """One finished run; mIoU in [0, 1].

    Attributes:
        best, last: Of the teacher: the best evaluation of the run, and the one after the last step.
        student: Of the student after the last step; None without a teacher.
        curve: Of the teacher, by step.
        over: The classes in the mIoU, such as "11 of 11 classes"; several if it varied between evaluations.
        seconds: Wall-clock time of the run, evaluations included.
    """

    split: str
    method: str
    seed: int
    best: float
    last: float
    student: float | None
    curve: dict[int, float]
    over: str
    seconds: float


def table(results: Sequence[Result]) -> str:
    """Return Markdown with one table per split; mIoU in percent, mean ± standard deviation over the seeds."""
    splits = list(dict.fromkeys(result.split for result in results))
    return "\n".join(_split_table(split, [result for result in results if result.split == split]) for split in splits)


def gain(results: Sequence[Result], method: str, field: str) -> tuple[float, float] | None:
    """Return mean and standard deviation of the gain over labels only, in points of mIoU, paired by seed."""
    base = {result.seed: getattr(result, field) for result in results if result.method == BASELINE}
    gains = [
        100 * (getattr(result, field) - base[result.seed])
        for result in results
        if result.method == method and result.seed in base
    ]
    return (mean(gains), _stdev(gains)) if gains else None


def _split_table(split: str, results: list[Result]) -> str:
    methods = list(dict.fromkeys(result.method for result in results))
    over = " or ".join(sorted({result.over for result in results}))
    head = (
        f"Split {split}, mIoU over {over} in percent (mean ± standard deviation over seeds)\n\n"
        "| method | seeds | best, EMA | last, EMA | last, student | best over labels only | last over labels only "
        "| minutes |\n"
        "|---|---|---|---|---|---|---|---|\n"
    )
    return head + "".join(_row(method, results) for method in methods)


def _row(method: str, results: list[Result]) -> str:
    own = [result for result in results if result.method == method]
    students = [result.student for result in own if result.student is not None]
    cells = [
        NAMES.get(method, method),
        str(len(own)),
        _percent([result.best for result in own]),
        _percent([result.last for result in own]),
        _percent(students) if students else "",
        *(_points(results, method, field) for field in ("best", "last")),
        f"{mean(result.seconds for result in own) / 60:.1f}",
    ]
    return f"| {' | '.join(cells)} |\n"


def _points(results: list[Result], method: str, field: str) -> str:
    found = None if method == BASELINE else gain(results, method, field)
    return f"{found[0]:+.1f} ± {found[1]:.1f}" if found else ""


def _percent(values: Sequence[float]) -> str:
    return f"{100 * mean(values):.1f} ± {100 * _stdev(values):.1f}"


def _stdev(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0
