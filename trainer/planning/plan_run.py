"""Plan the run of a data set without a recipe: check the data, choose the settings, and show them with reasons."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from trainer.checkpoint import load
from trainer.config import Recipe
from trainer.counted import counted
from trainer.data.check.inspection import ROLES, Inspection, SplitRecord, inspect_splits
from trainer.data.check.problem_list import show_problems
from trainer.data.check.problems import Problem, find_problems
from trainer.data.dataset import DatasetError, SegmentationDataset
from trainer.data.readers.layouts import open_dataset, open_unlabelled
from trainer.planning.machine import find_machine
from trainer.planning.plan import Choice, make_plan, take_network
from trainer.planning.roles import SPLIT_NAMES, Roles, find_roles
from trainer.recipe_file import resolve, set_value

MAX_INSPECTED = 200
"""Up to this many images, all problems of the data are listed: that decodes each of them once more than the run does,
which stops at the first error.
"""


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A recipe, the choices in it, and the lists of images that it reads."""

    recipe: Recipe
    choices: tuple[Choice, ...]
    roles: Roles

    def write_lists(self) -> None:
        """Write the drawn lists of images, if there are any, where the recipe expects them."""
        if self.roles.drawn:
            self.roles.write_lists(Path(self.recipe.data.splits))

    def as_event(self) -> dict[str, Any]:
        """Fields of the event `plan`."""
        return {"choices": [asdict(choice) for choice in self.choices]}


def plan_run(root: Path, overrides: list[str], out: Path, console: Console) -> PlannedRun:
    """Plan the training of the data set at `root` into the folder `out`; prints the problems and the choices.

    Raises DatasetError if the data cannot be used, RecipeError for a wrong override, CheckpointError, RunError,
    ImageError.
    """
    given: dict[str, Any] = {}
    for override in overrides:
        set_value(given, override)
    dataset, roles = _open(root, given)
    inspection = _inspect(dataset, roles)
    if inspection:
        _stop_at_errors(inspection, console)
    plan = make_plan(dataset, roles, find_machine(given.get("train", {}).get("device", "auto")))
    if given.get("init"):
        take_network(plan, load(Path(given["init"])))
    if inspection and inspection.proposed_range:
        plan.choose("data.range", [*inspection.proposed_range], "contains nearly all stored values: these need a range")
    plan.table["data"]["root"] = str(root.resolve())
    if roles.drawn:
        plan.choose("data.splits", str((out / "splits").resolve()), "the lists of images that were chosen here")
    recipe = resolve(plan.table, f"the plan for {root}", overrides)
    if inspection:
        show_problems(_problems(inspection, recipe.data.crop), console)
    choices = tuple(_as_set(choice, given) for choice in plan.choices)
    _show(choices, console)
    return PlannedRun(recipe, choices, roles)


def _open(root: Path, given: dict[str, Any]) -> tuple[SegmentationDataset, Roles]:
    data = given.get("data", {})
    splits, value_range = data.get("splits"), data.get("range")
    dataset = open_dataset(
        root, data.get("format", "auto"), Path(splits) if splits else None, tuple(value_range) if value_range else None
    )
    named = {role: data[role] for role in SPLIT_NAMES if role in data}
    if given.get("method") == "supervised":
        named["unlabelled"] = ""
    elsewhere = data.get("unlabelled_root")
    return dataset, find_roles(dataset, named, open_unlabelled(Path(elsewhere)) if elsewhere else None)


def _inspect(dataset: SegmentationDataset, roles: Roles) -> Inspection | None:
    splits = tuple(
        SplitRecord(role, ROLES[role], samples)
        for role, samples in roles.samples.items()
        if not (role == "unlabelled" and roles.elsewhere)
    )
    few = sum(len(split.samples) for split in splits) <= MAX_INSPECTED
    return inspect_splits(dataset, splits) if few else None


def _problems(inspection: Inspection, crop: tuple[int, int] | None = None) -> list[Problem]:
    # The plan answers these two.
    answered = {"missing split", "undeclared range"}
    return [problem for problem in find_problems(inspection, crop) if problem.kind not in answered]


def _stop_at_errors(inspection: Inspection, console: Console) -> None:
    problems = _problems(inspection)
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        show_problems(problems, console)
        first = f"{errors[0].message}; {errors[0].remedy}".removesuffix("; ")
        count = counted(len(errors), "error", "errors")
        raise DatasetError(f"{inspection.dataset.root}: has {count}; correct them. The first: {first}")


def _as_set(choice: Choice, given: dict[str, Any]) -> Choice:
    value: Any = given
    for part in choice.setting.split("."):
        if not isinstance(value, dict) or part not in value:
            return choice
        value = value[part]
    return replace(choice, value=value, reason="as you set")


def _show(choices: tuple[Choice, ...], console: Console) -> None:
    table = Table(box=None, title="What will be run", title_justify="left")
    for head in ("setting", "value", "because"):
        table.add_column(head, overflow="fold")
    for choice in choices:
        table.add_row(choice.setting, str(choice.value), choice.reason)
    console.print(table)
    console.print("Change a setting with --set SETTING=VALUE.", markup=False, highlight=False)
