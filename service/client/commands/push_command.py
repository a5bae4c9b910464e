"""`maskloop push FOLDER`: send a data set, or images only, to the pool of a service."""

from __future__ import annotations

import argparse
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.client.commands.connection import add_connection, connect
from service.client.commands.exit_codes import DONE, PARTLY
from service.client.commands.terminal import note, print_failures, print_json, progress_bar, say
from service.client.folders.dataset_folder import FolderImage, read_class_list, read_folder
from service.client.folders.segment_journal import sha256_of
from service.client.wrong_usage import WrongUsage

if TYPE_CHECKING:
    from service.client.answers import PoolImage
    from service.client.folders.label_ids import LabelIds
    from service.client.sync_client import Client

DESCRIPTION = """Send images to the pool, for training. FOLDER is a data set (images/, masks/, splits/, classes.toml),
whose labels are sent too, or any folder of images. What the service has already is skipped, so that the same command
continues after an interruption. Class ids are translated by the names of the classes. Images of the test split are
not sent. What was refused is listed with the reasons, and the exit code is 3."""

NEW, PRESENT, LABELLED, SAME_LABEL = "images_sent", "images_present", "labels_sent", "labels_present"


def add_push(commands: Any) -> None:
    """Add the command."""
    command = commands.add_parser("push", help="send a data set or a folder of images", description=DESCRIPTION)
    command.add_argument("folder", type=Path, metavar="FOLDER", help="a data set, or a folder of images")
    group = (
        "regular expression whose first group, searched in the name of an image, is the video, place or patient to "
        "which the image belongs, such as '^(.*)_[0-9]+$'. Images of a group are not independent"
    )
    group += " (default: those of groups.csv, if there is one)"
    command.add_argument("--group", type=_pattern, metavar="REGEX", help=group)
    command.add_argument("--no-labels", action="store_true", help="send the images alone")
    by_id = "send class ids as they are, although the service has other names for them, or classes.toml is missing"
    command.add_argument("--by-id", action="store_true", help=by_id)
    partial = "masks of 0 and 255 only are labels of class 0 with pixels that have no label"
    command.add_argument("--partial", action="store_true", help=partial)
    add_connection(command)
    command.set_defaults(command=run)


@dataclass(slots=True)
class Outcome:
    """What became of images and labels."""

    counts: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Path and reason."""


def run(options: argparse.Namespace) -> int:
    """Send the folder and print what became of it; 3 if something was refused."""
    images, test = read_folder(options.folder, options.group)
    outcome = Outcome()
    with connect(options) as client:
        sender = _Sender(client, _translation(client, images, options), options, outcome)
        try:
            sender.send(images)
        except BaseException:
            if outcome.counts or outcome.failed:
                _print(outcome, test, json=options.json)
            raise
    _print(outcome, test, json=options.json)
    return PARTLY if outcome.failed else DONE


def _translation(client: Client, images: Sequence[FolderImage], options: argparse.Namespace) -> LabelIds | None:
    """Return how class ids are translated; None: not at all."""
    from service.client.folders.label_ids import LabelIds  # noqa: PLC0415

    if options.by_id or options.no_labels or all(image.mask is None for image in images):
        return None
    source = read_class_list(options.folder)
    if source is None:
        raise WrongUsage(
            f"{options.folder} has masks and no classes.toml, so that nobody knows what their ids mean: add it, give "
            "--by-id if they are the ids of the service's classes, or --no-labels."
        )
    return LabelIds(source, client.get_classes())


class _Sender:
    """Sends images in batches, and the label of each."""

    def __init__(
        self, client: Client, label_ids: LabelIds | None, options: argparse.Namespace, outcome: Outcome
    ) -> None:
        self._client = client
        self._label_ids = label_ids
        self._labels = not options.no_labels
        self._partial: bool = options.partial
        self._outcome = outcome
        self._first: dict[str, FolderImage] = {}
        """The first image with these bytes, by their SHA-256."""

    def send(self, images: Sequence[FolderImage]) -> None:
        """Send everything that the service does not have. Raises CallError if it cannot be used at all."""
        from service.client.folders.batches_of_files import batches, in_parallel  # noqa: PLC0415

        readable = [image for image in images if os.access(image.path, os.R_OK)]
        unreadable = {image.path for image in images} - {image.path for image in readable}
        self._outcome.failed += [
            (str(path), "it cannot be read: correct its permissions") for path in sorted(unreadable)
        ]
        with progress_bar() as progress:
            bar = progress.add_task("push", total=len(readable))
            for results in in_parallel(self._batch, batches(readable, lambda image: image.path)):
                for path, result in results:
                    if result in (NEW, PRESENT, LABELLED, SAME_LABEL):
                        self._outcome.counts[result] += 1
                    else:
                        self._outcome.failed.append((str(path), result))
                progress.advance(bar, len({path for path, _ in results}))

    def _batch(self, images: Sequence[FolderImage]) -> list[tuple[Path, str]]:
        """Send one batch; return paths with what became of them: a key of the counts, or the reason of a refusal."""
        from service.client.folders.batches_of_files import halved_if_refused  # noqa: PLC0415

        ids = {image: sha256_of(image.path) for image in images}
        copies = {image: first for image in images if (first := self._first.setdefault(ids[image], image)) != image}
        originals = [image for image in images if image not in copies]
        present = {image: record for image in originals if (record := self._record(ids[image]))}
        absent = [image for image in originals if image not in present]
        results: list[tuple[Path, str]] = [(image.path, PRESENT) for image in present]
        results += [(image.path, _reason_of_copy(image, first)) for image, first in copies.items()]
        sent: Iterable[tuple[FolderImage, PoolImage | str]]
        sent = halved_if_refused(self._upload, lambda image, error: (image, str(error)), absent) if absent else ()
        for image, added in sent:
            if isinstance(added, str):
                results.append((image.path, added))
            else:
                results.append((image.path, NEW))
                present[image] = added
        labelled = [image for image in present if image.mask and self._labels]
        return results + [(image.path, self._label(image, present[image])) for image in labelled]

    def _record(self, image_id: str) -> PoolImage | None:
        from service.client.call_errors import Missing  # noqa: PLC0415

        try:
            return self._client.get_image(image_id)
        except Missing:
            return None

    def _upload(self, images: Sequence[FolderImage]) -> Iterator[tuple[FolderImage, PoolImage | str]]:
        from service.client.call import Upload  # noqa: PLC0415

        for line in self._client.add_images([Upload.of(image.path) for image in images]):
            reason = line.problem.detail if line.problem else "the service did not say what became of it"
            yield images[line.index], line.image or reason

    def _label(self, image: FolderImage, record: PoolImage) -> str:
        from service.client.call_errors import Invalid, Missing  # noqa: PLC0415
        from service.client.folders.label_ids import UnusableMask  # noqa: PLC0415

        if image.mask is None or not image.mask.is_file():
            return f"the split {image.split} lists it and there is no mask: add it, or list it as unlabelled"
        try:
            png = image.mask.read_bytes()
            png = self._label_ids.translate(png) if self._label_ids else png
            if self._has_label(image, record, png):
                return SAME_LABEL
            self._put(image, record, png)
        except (Invalid, Missing, UnusableMask) as error:
            return f"label refused: {error}"
        return LABELLED

    def _put(self, image: FolderImage, record: PoolImage, png: bytes) -> None:
        # The list may change meanwhile.
        version = self._label_ids.version if self._label_ids else None
        self._client.put_mask(
            record.id,
            png,
            split=image.split,
            group=image.group,
            partial=self._partial,
            classes_version=version,
        )

    def _has_label(self, image: FolderImage, record: PoolImage, png: bytes) -> bool:
        """Whether the service has this label already: a label that is sent again would count as a new one."""
        if record.labelled_at is None:
            return False
        # Without a group or a split, the service keeps those of the label.
        if image.group not in (None, record.group) or image.split not in (None, record.split):
            return False
        import numpy as np  # noqa: PLC0415 - slow

        from service.client.folders.label_ids import read_ids  # noqa: PLC0415

        return np.array_equal(read_ids(png), read_ids(self._client.get_mask(record.id)))


def _reason_of_copy(image: FolderImage, first: FolderImage) -> str:
    same = image.mask is None and image.split == first.split
    return PRESENT if same else f"label not sent: the image has the same bytes as {first.path}; remove one of them"


def _print(outcome: Outcome, test: int, *, json: bool) -> None:
    counts = {name: outcome.counts[name] for name in (NEW, PRESENT, LABELLED, SAME_LABEL)}
    if json:
        failed = [{"path": path, "reason": reason} for path, reason in outcome.failed]
        print_json({**counts, "test_left_out": test, "failed": failed})
        return
    print_failures(outcome.failed)
    if test:
        note(f"{test} images of the test split are not sent, since images of the pool may be trained with.")
    say(
        f"images: {counts[NEW]} sent, {counts[PRESENT]} were there; labels: {counts[LABELLED]} sent, "
        f"{counts[SAME_LABEL]} were there; failed: {len(outcome.failed)}"
    )


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression ({error})") from None
