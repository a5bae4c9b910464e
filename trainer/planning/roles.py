"""Which images of a data set are labelled, unlabelled and for validation: its own splits, or lists drawn from them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from trainer.counted import counted
from trainer.data.check.inspection import ROLES
from trainer.data.dataset import EVERYTHING, DatasetError, Sample, SegmentationDataset, without
from trainer.data.map_in_threads import map_in_threads

VAL_SHARE = 0.2
"""Share of the labelled images that is held out for validation if the data set has no split for it."""
LEAST_LABELLED = 10
"""With fewer labelled images, those held out would cost more than the score tells."""
SPLIT_NAMES = {
    "labelled": ("labelled", "labeled", "train", "training"),
    "unlabelled": ("unlabelled", "unlabeled"),
    "val": ("val", "valid", "validation"),
}
"""Names of splits by role, the first that exists is used. `test` is none: no choice may depend on it."""


@dataclass(slots=True)
class Roles:
    """The images of a run by role ("labelled", "unlabelled", "val"), and why they are these.

    `names` are splits of the data set; a role without one has a drawn list of samples, which may be empty. `elsewhere`:
    the unlabelled images are those of another folder.
    """

    names: dict[str, str] = field(default_factory=dict)
    samples: dict[str, tuple[Sample, ...]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    elsewhere: bool = False

    def use(self, role: str, samples: Sequence[Sample], reason: str, name: str = "") -> None:
        """Set the images of a role, and their split if it is one of the data set."""
        self.samples[role], self.reasons[role] = tuple(samples), reason
        if name:
            self.names[role] = name

    @property
    def drawn(self) -> bool:
        """Whether a role has a list that is no split of the data set."""
        return any(samples and role not in self.names for role, samples in self.samples.items())

    def write_lists(self, folder: Path) -> None:
        """Write the lists of all roles as split files, which the run reads instead of the data set's own."""
        folder.mkdir(parents=True, exist_ok=True)
        for role, samples in self.samples.items():
            if samples and not (role == "unlabelled" and self.elsewhere):
                lines = "".join(f"{sample.name}\n" for sample in samples)
                (folder / f"{role}.txt").write_text(lines, encoding="utf-8")


def find_roles(
    dataset: SegmentationDataset, given: Mapping[str, str], elsewhere: SegmentationDataset | None = None
) -> Roles:
    """Find the images of each role; `given` are splits by role that the user named ("" = none).

    `elsewhere` has the unlabelled images if the user named another folder for them. Raises DatasetError if no image is
    labelled, or if several splits could be meant.
    """
    roles = Roles(elsewhere=elsewhere is not None)
    if elsewhere:
        name = given.get("unlabelled", EVERYTHING)
        roles.use("unlabelled", elsewhere.split(name), f"the images of {elsewhere.root.name}", name)
    for role in SPLIT_NAMES:
        if role in roles.names:
            continue
        name = given[role] if role in given else _own_split(dataset, role, roles.names.get("labelled", ""))
        if name:
            reason = "as you set" if role in given else f"split {name}"
            roles.use(role, dataset.split(name), reason, name)
        elif role in given:
            roles.use(role, (), "as you set")
    if "labelled" not in roles.samples or "unlabelled" not in roles.samples:
        _sort_the_rest(dataset, roles)
    if not roles.samples["labelled"]:
        raise DatasetError(
            f"{dataset.root}: no image has a mask; label some images, and put each mask into masks/ under its image's "
            "name"
        )
    if "val" not in roles.samples:
        _hold_out(dataset, roles)
    return roles


def _own_split(dataset: SegmentationDataset, role: str, labelled: str) -> str:
    """The data set's split for a role, "" without one: beside the labelled one, at the top, or the only one below."""
    names, folder = dataset.splits(), PurePosixPath(labelled).parent
    wanted = [
        name
        for place in (folder, PurePosixPath())
        for name in ((place / each).as_posix() for each in SPLIT_NAMES[role])
    ]
    if found := next((name for name in wanted if name in names), ""):
        return found
    deeper = [name for name in names if PurePosixPath(name).name in SPLIT_NAMES[role]]
    if labelled or not deeper:
        return ""
    if len(deeper) > 1:
        raise DatasetError(
            f"{dataset.root}: several splits could be the {role} images: {', '.join(deeper)}; choose one, for example "
            f"--set data.{role}={deeper[0]}"
        )
    return deeper[0]


def _sort_the_rest(dataset: SegmentationDataset, roles: Roles) -> None:
    """Images in no split: labelled if they have a mask and no split is labelled, else unlabelled."""
    listed = [dataset.split(name) for name in dataset.splits() if PurePosixPath(name).name in {*ROLES, "training"}]
    rest = without(dataset.split(EVERYTHING), *listed, *roles.samples.values())
    if "labelled" not in roles.samples:
        roles.use("labelled", [sample for sample in rest if dataset.has_mask(sample)], "the images that have a mask")
    if "unlabelled" not in roles.samples:
        bare = [sample for sample in rest if not dataset.has_mask(sample)]
        roles.use("unlabelled", bare, "the images without a mask" if bare else "every image has a mask")


def _hold_out(dataset: SegmentationDataset, roles: Roles) -> None:
    """Take the last labelled images by name for validation: neighbours by name are often frames of one video."""
    labelled = sorted(roles.samples["labelled"], key=lambda sample: sample.name)
    count = len(labelled)
    if count < LEAST_LABELLED:
        reason = f"{counted(count, 'labelled image is', 'labelled images are')} too few to hold some out"
        roles.use("val", (), f"{reason}: label {LEAST_LABELLED} or more to measure the model")
        return
    kept = count - math.ceil(VAL_SHARE * count)
    shown = map_in_threads(lambda sample: _classes_in(dataset, sample), labelled, "masks")
    learnt = set().union(*shown[:kept])
    held = [sample for sample, classes in zip(labelled[kept:], shown[kept:], strict=True) if classes <= learnt]
    if not held:
        roles.use("val", (), "each of the last labelled images shows a class that no other one shows")
        return
    roles.names.pop("labelled", None)
    roles.use("labelled", without(labelled, held), f"{roles.reasons['labelled']}, without those held out")
    roles.use("val", held, f"the data set has no val split: the last {len(held)} labelled images by name are held out")


def _classes_in(dataset: SegmentationDataset, sample: Sample) -> set[int]:
    ids = np.unique(dataset.read_mask(sample, dataset.size(sample)))
    return {int(index) for index in ids if index != dataset.taxonomy.ignore_index}
