"""`maskloop segment PATH... --out DIR`: write the masks of images."""

from __future__ import annotations

import argparse
import base64
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.client.commands.connection import add_connection, connect
from service.client.commands.exit_codes import DONE, PARTLY
from service.client.commands.terminal import note, print_failures, print_json, progress_bar, say
from service.client.folders.image_paths import FoundImage, find_images
from service.client.folders.segment_journal import SegmentJournal, sha256_of
from service.client.wrong_usage import WrongUsage

if TYPE_CHECKING:
    from service.client.answers import SegmentedLine
    from service.client.sync_client import Client

DESCRIPTION = """Write the mask of each image: OUT/NAME.png, an indexed PNG in which a pixel is a class id. Subfolders
of a folder are kept. An image that fails does not stop the others, and the exit code is 3. Run the same command again
to continue: masks that are there are skipped. OUT/masks.jsonl lists image, SHA-256, model, confidence and class areas
of each mask."""


def add_segment(commands: Any) -> None:
    """Add the command."""
    command = commands.add_parser("segment", help="write the masks of images", description=DESCRIPTION)
    command.add_argument("paths", nargs="+", metavar="PATH", help="image files, folders, or patterns in quotes")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the masks")
    overlay = "also write NAME.overlay.jpg with a legend; this segments each image a second time"
    command.add_argument("--overlay", action="store_true", help=overlay)
    command.add_argument("--classes", metavar="A,B", help="only these classes, by name or id; other pixels get 255")
    command.add_argument("--model", metavar="VERSION", help="a version (default: the active one)")
    command.add_argument("--force", action="store_true", help="compute and overwrite masks that exist")
    add_connection(command)
    command.set_defaults(command=run)


@dataclass(frozen=True, slots=True)
class Task:
    """An image and the names of its outputs, below the folder of the masks."""

    image: FoundImage
    mask: str
    overlay: str


@dataclass(slots=True)
class Outcome:
    """What became of the images."""

    written: list[str] = field(default_factory=list)
    skipped: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Path and reason."""


def run(options: argparse.Namespace) -> int:
    """Segment the images and print what became of them; 3 if some failed."""
    tasks = plan(find_images(options.paths, outside=options.out), options.out)
    journal = SegmentJournal(options.out)
    outcome = Outcome()
    with connect(options) as client:
        try:
            Segmenter(client, options, journal, outcome).segment(tasks)
        except BaseException:
            if outcome.written or outcome.failed:
                _print(outcome, options, journal)
            raise
    _print(outcome, options, journal)
    return PARTLY if outcome.failed else DONE


def plan(images: Sequence[FoundImage], out: Path) -> list[Task]:
    """Name the outputs. Raises WrongUsage if one would overwrite an image, or two are the same."""
    inputs = {image.path.resolve() for image in images}
    by_output: dict[str, Path] = {}
    tasks = []
    for image in images:
        name = image.name.as_posix()
        stem = name[: len(name) - len(image.name.suffix)]
        task = Task(image, f"{stem}.png", f"{stem}.overlay.jpg")
        if written := inputs & {(out / task.mask).resolve(), (out / task.overlay).resolve()}:
            raise WrongUsage(f"{min(written)} is one of the images and would be overwritten: give another --out.")
        # Some file systems ignore case.
        if other := by_output.get(task.mask.casefold()):
            raise WrongUsage(
                f"{other} and {image.path} would both become {out / task.mask}: rename one, segment them into two "
                "folders, or give the folder above both, whose subfolders are kept."
            )
        by_output[task.mask.casefold()] = image.path
        tasks.append(task)
    return tasks


class Segmenter:
    """Sends images in batches and writes their masks."""

    def __init__(self, client: Client, options: argparse.Namespace, journal: SegmentJournal, outcome: Outcome) -> None:
        self._client = client
        self._outcome = outcome
        self._out: Path = options.out
        self._overlay: bool = options.overlay
        self._force: bool = options.force
        self._model: str | None = options.model
        self._classes = options.classes.split(",") if options.classes else None
        self._journal = journal

    def segment(self, tasks: Sequence[Task]) -> None:
        """Segment those whose mask is not there. Raises CallError if the service cannot be used at all."""
        from service.client.folders.batches_of_files import batches, in_parallel  # noqa: PLC0415

        remaining = [task for task in tasks if self._remains(task)]
        with progress_bar() as progress:
            bar = progress.add_task("segment", total=len(remaining))
            for results in in_parallel(self._batch, batches(remaining, lambda task: task.image.path)):
                for task, reason in results:
                    self._record(task, reason)
                progress.advance(bar, len(results))

    def _record(self, task: Task, reason: str | None) -> None:
        if reason is None:
            self._outcome.written.append(task.mask)
        else:
            self._outcome.failed.append((str(task.image.path), reason))

    def _remains(self, task: Task) -> bool:
        """Whether an image is to be segmented; if not, record why."""
        if not os.access(task.image.path, os.R_OK):
            self._record(task, "the file cannot be read: correct its permissions")
            return False
        outputs = [task.mask, task.overlay] if self._overlay else [task.mask]
        existing = [name for name in outputs if (self._out / name).exists()]
        if self._force or not existing:
            return True
        if not self._journal.has(task.mask, task.image.path):
            self._record(task, "the mask exists and is not of this image: give another --out, or --force")
            return False
        self._outcome.skipped += existing == outputs
        return existing != outputs

    def _batch(self, tasks: Sequence[Task]) -> list[tuple[Task, str | None]]:
        """Segment one batch; return each image with the reason why it failed, or None."""
        from service.client.folders.batches_of_files import halved_if_refused  # noqa: PLC0415

        return list(halved_if_refused(self._send, lambda task, error: (task, str(error)), tasks))

    def _send(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, str | None]]:
        from service.client.call import Upload  # noqa: PLC0415

        uploads = [Upload.of(task.image.path) for task in tasks]
        lines: Iterable[SegmentedLine] = self._client.segment_batch(
            uploads, model=self._model, classes=self._classes, masks="png"
        )
        for line in lines:
            task = tasks[line.index]
            yield task, line.problem.detail if line.problem else self._write(task, line)

    def _write(self, task: Task, line: SegmentedLine) -> str | None:
        from service.client.call_errors import Refused  # noqa: PLC0415
        from service.client.folders.written_files import write_file  # noqa: PLC0415

        result = line.result
        if result is None or result.mask_png is None:
            return "the service sent no mask: is it of another version than this command?"
        if self._overlay:
            try:
                overlay = self._client.segment_overlay(
                    task.image.path.read_bytes(), model=self._model, classes=self._classes
                )
            except Refused as error:
                return f"no overlay: {error}"
            write_file(self._out / task.overlay, overlay)
        # An entry without a mask is harmless, a mask without an entry would stop the next attempt.
        (self._out / task.mask).unlink(missing_ok=True)
        areas = {region.name: region.fraction for region in result.classes}
        entry = {"image": str(task.image.path), "sha256": sha256_of(task.image.path), "model": result.model}
        self._journal.add(task.mask, entry | {"confidence": result.confidence, "classes": areas})
        write_file(self._out / task.mask, base64.b64decode(result.mask_png))
        return None


def _print(outcome: Outcome, options: argparse.Namespace, journal: SegmentJournal) -> None:
    models = sorted(journal.models())
    if options.json:
        failed = [{"image": path, "reason": reason} for path, reason in outcome.failed]
        print_json({"written": outcome.written, "skipped": outcome.skipped, "failed": failed, "models": models})
        return
    parts = [f"{len(outcome.written)} written to {options.out}"]
    parts += [f"{outcome.skipped} were there already"] if outcome.skipped else []
    parts += [f"{len(outcome.failed)} failed"] if outcome.failed else []
    print_failures(outcome.failed)
    say(f"masks: {', '.join(parts)}")
    if len(models) > 1:
        note(f"These masks are of {len(models)} models ({', '.join(models)}); --force computes all of them again.")
