"""Print the problems of a data set."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console

from trainer.data.check.problems import Problem

MAX_NAMED = 5
"""Names of a problem, and problems of a kind, that are shown."""
STYLES = {"error": "red", "warning": "yellow"}


def show_problems(problems: Sequence[Problem], console: Console) -> None:
    """Print the problems, of each kind the first ones, and their number."""
    shown: Counter[str] = Counter()
    for problem in problems:
        shown[problem.kind] += 1
        if shown[problem.kind] <= MAX_NAMED:
            _show_problem(problem, console)
    for kind, count in shown.items():
        if count > MAX_NAMED:
            console.print(f"{kind}: {count - MAX_NAMED} more; --json lists all", markup=False, highlight=False)
    errors = sum(problem.severity == "error" for problem in problems)
    console.print(f"errors: {errors}, warnings: {len(problems) - errors}", style="red" if errors else "green")


def _show_problem(problem: Problem, console: Console) -> None:
    message = f"{problem.severity}: {problem.message}"
    console.print(message, style=STYLES[problem.severity], markup=False, highlight=False, soft_wrap=True)
    names = [name for name in problem.names if name not in problem.message]
    for name in names[:MAX_NAMED]:
        console.print(f"    {name}", markup=False, highlight=False, soft_wrap=True)
    if len(names) > MAX_NAMED:
        console.print(f"    and {len(names) - MAX_NAMED} more; --json lists all", markup=False, highlight=False)
    if problem.remedy:
        console.print(f"  {problem.remedy}", markup=False, highlight=False, soft_wrap=True)
