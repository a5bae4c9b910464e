"""Choose the recipe of a run from a data set and a machine, each setting with its reason."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trainer.checkpoint import Checkpoint
from trainer.data.dataset import Sample, SegmentationDataset
from trainer.evaluation.audit import evenly_spaced
from trainer.models.encoders.weights import hub_has_weights
from trainer.planning.machine import Machine
from trainer.planning.roles import Roles
from trainer.recipe_file import read_table

RECIPES = Path(__file__).parents[1] / "recipes" / "own"
MEASURED_SIZES = 50
"""Number of images whose sizes are read."""
LARGE_GPU_GIB, LARGE_GPU_IMAGES = 40, 1000
"""GPU memory and number of training images from which the larger encoder pays."""
FEW_CORES = 4
"""With at most so many cores, images are smaller and steps fewer: minutes instead of hours."""
LEAST_NORM_BATCH = 4
"""Images in a batch below which batch norm's statistics are too noisy."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What is chosen for a kind of machine.

    Attributes:
        recipe: file in recipes/own.
        multiple: sides of crops are multiples of this, in pixels.
        crop: largest side of a crop, in pixels.
        long_side: long side of an image in the network above which it is resized, in pixels.
        steps: least and most steps.
        passes: over the unlabelled images; the number of steps follows, within its limits.
    """

    recipe: str
    multiple: int
    crop: int
    long_side: int
    steps: tuple[int, int]
    passes: int


FEW, CPU = Profile("cpu", 32, 192, 320, (400, 800), 5), Profile("cpu", 32, 256, 480, (1000, 2000), 10)
SMALL_GPU = Profile("small_gpu", 14, 392, 1024, (5000, 20000), 10)
LARGE_GPU = Profile("large_gpu", 14, 518, 1024, (20000, 40000), 10)


@dataclass(frozen=True, slots=True)
class Choice:
    """One setting of the plan: its dotted name, its value, and the reason in words."""

    setting: str
    value: Any
    reason: str


@dataclass(slots=True)
class Plan:
    """The table of a recipe, and the choices in it that the user should see."""

    table: dict[str, Any]
    choices: list[Choice] = field(default_factory=list)

    def choose(self, setting: str, value: Any, reason: str) -> None:
        """Set a value, and show it if there is a reason."""
        *parents, leaf = setting.split(".")
        table = self.table
        for parent in parents:
            table = table.setdefault(parent, {})
        table[leaf] = value
        self.choices.append(Choice(setting, value, reason))


def make_plan(
    dataset: SegmentationDataset, roles: Roles, machine: Machine, reachable: Callable[[str], bool] = hub_has_weights
) -> Plan:
    """Choose a recipe for the images in `roles`; `reachable` says whether the hub has the weights of an encoder.

    Raises ImageError.
    """
    counts = {role: len(samples) for role, samples in roles.samples.items()}
    profile, reason = _profile_for(machine, counts), f"for {machine}"
    encoder = read_table(RECIPES / f"{profile.recipe}.toml")["model"]["encoder"]
    if profile.recipe != "cpu" and not reachable(encoder):
        profile = CPU
        reason = f"for {machine}, since the weights of {encoder} cannot be downloaded: these are installed"
    plan = Plan(read_table(RECIPES / f"{profile.recipe}.toml"))
    plan.choices.append(Choice("recipe", f"own/{profile.recipe}.toml", reason))
    plan.choices.append(Choice("model.encoder", plan.table["model"]["encoder"], "that of the recipe"))
    _choose_images(plan, roles)
    _choose_method(plan, counts)
    _choose_sizes(plan, profile, typical_size(dataset, roles.samples["labelled"]))
    _choose_steps(plan, profile, machine, counts["unlabelled"])
    if machine.kind == "cpu":
        plan.table["train"]["log_every"] = 1
    else:
        plan.table["data"]["workers"] = min(4, machine.cores // 2)
    return plan


def take_network(plan: Plan, saved: Checkpoint) -> None:
    """Choose the network of the checkpoint that the run starts from, and the learning rates of its training."""
    plan.table["model"] = saved.recipe["model"]
    for name in ("lr_encoder", "lr_head_factor", "lr_reference_batch"):
        plan.table["train"][name] = saved.recipe["train"][name]
    plan.choices = [choice for choice in plan.choices if choice.setting not in {"model.encoder", "data.crop"}]
    plan.choose("model.encoder", saved.recipe["model"]["encoder"], "that of the checkpoint init")
    multiple = saved.model.size_multiple
    side = max(multiple, plan.table["data"]["crop"][0] // multiple * multiple)
    plan.choose("data.crop", [side, side], f"a multiple of {multiple}, as this encoder needs")


def typical_size(dataset: SegmentationDataset, samples: Sequence[Sample]) -> tuple[int, int]:
    """Median (height, width) of some images, in pixels, read from their headers. Raises ImageError."""
    sizes = [dataset.size(sample) for sample in evenly_spaced(samples, MEASURED_SIZES)]
    height, width = np.median(sizes, axis=0)
    return int(height), int(width)


def _profile_for(machine: Machine, counts: dict[str, int]) -> Profile:
    if machine.kind != "cuda":
        return FEW if machine.cores <= FEW_CORES else CPU
    enough = machine.gpu_gib >= LARGE_GPU_GIB and counts["labelled"] + counts["unlabelled"] >= LARGE_GPU_IMAGES
    return LARGE_GPU if enough else SMALL_GPU


def _choose_images(plan: Plan, roles: Roles) -> None:
    for role, samples in roles.samples.items():
        listed = roles.drawn and not (role == "unlabelled" and roles.elsewhere)
        own = role if listed or not samples else roles.names[role]
        plan.table["data"][role] = own if samples or role != "val" else ""
        plan.choices.append(Choice(f"{role} images", len(samples), roles.reasons[role]))
    if not roles.samples["val"]:
        plan.choose("train.keep", "last", "without val images the best evaluation is not known")


def _choose_method(plan: Plan, counts: dict[str, int]) -> None:
    train = plan.table["train"]
    labelled, unlabelled = train["batch_labelled"], train["batch_unlabelled"]
    if counts["unlabelled"] < 2:
        train["batch_labelled"] = min(2 * labelled, counts["labelled"])
        plan.choose("method", "supervised", "labels only: there are no unlabelled images to learn from")
    else:
        train["batch_labelled"] = min(labelled, counts["labelled"])
        train["batch_unlabelled"] = min(unlabelled, counts["unlabelled"])
        plan.choose("method", plan.table["method"], "learns from labelled and unlabelled images")
    if train["batch_labelled"] < LEAST_NORM_BATCH:
        reason = f"{train['batch_labelled']} labelled images a step are few for batch norm"
        plan.choose("train.freeze_norms", True, reason)


def _choose_sizes(plan: Plan, profile: Profile, size: tuple[int, int]) -> None:
    long_side, shown = max(size), f"the images have {size[1]}x{size[0]} pixels"
    if long_side > profile.long_side:
        long_side = profile.long_side
        plan.choose("inference.long_side", long_side, f"{shown}: resized, to bound time and memory")
    else:
        plan.choose("inference.long_side", 0, f"{shown}: not resized")
    side = max(profile.multiple, min(profile.crop, long_side) // profile.multiple * profile.multiple)
    reason = f"a multiple of {profile.multiple}, at most {profile.crop} and the image's side"
    plan.choose("data.crop", [side, side], reason)


def _choose_steps(plan: Plan, profile: Profile, machine: Machine, unlabelled: int) -> None:
    train, (least, most) = plan.table["train"], profile.steps
    passes = math.ceil(profile.passes * unlabelled / train["batch_unlabelled"])
    steps = min(most, max(least, passes))
    reasons = {least: f"enough for few images, on {machine}", most: f"the most that pays, on {machine}"}
    plan.choose("train.steps", steps, reasons.get(steps, f"{profile.passes} passes over the unlabelled images"))
    train["evaluate_every"] = max(1, steps // 5)
    train["save_every"] = min(train["save_every"], train["evaluate_every"])
