"""`maskloop pull --out DATASET`: fetch images and labels of the pool as a data set folder."""

from __future__ import annotations

import argparse
import csv
import io
import os
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.client.commands.connection import add_connection, connect
from service.client.commands.exit_codes import DONE, PARTLY
from service.client.commands.terminal import print_failures, print_json, progress_bar, say

if TYPE_CHECKING:
    from service.client.answers import PoolImage
    from service.client.sync_client import Client

DESCRIPTION = """Fetch images and labels of the pool as a data set: images/ID.jpg, masks/ID.png, splits, classes.toml,
and groups.csv if labels have groups. What is there already is not fetched again, so that the same command continues
after an interruption, or fetches what is new."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SUFFIXES = {"image/jpeg": ".jpg", "image/tiff": ".tif"}


def add_pull(commands: Any) -> None:
    """Add the command."""
    command = commands.add_parser("pull", help="fetch images and labels of the pool", description=DESCRIPTION)
    command.add_argument("--out", type=Path, required=True, metavar="DATASET", help="folder of the data set")
    command.add_argument("--which", choices=("all", "labelled", "unlabelled"), default="all", help="default: all")
    add_connection(command)
    command.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Fetch the pool and print what was fetched; 3 if files are lost or were deleted meanwhile."""
    from service.client.folders.batches_of_files import in_parallel  # noqa: PLC0415 - slow

    out: Path = options.out
    failed: list[tuple[str, str]] = []
    fetched = 0
    with connect(options) as client, progress_bar() as progress:
        images = list(client.list_images(which=options.which))
        bar = progress.add_task("pull", total=len(images))
        for image, files, reason in in_parallel(lambda image: _fetch(client, image, out), images):
            failed += [(image.id, reason)] if reason else []
            fetched += files
            progress.advance(bar)
        write_classes(client, out)
    lost = {image_id for image_id, _ in failed}
    kept = [image for image in images if image.id not in lost]
    _write_lists(out, kept)
    labels = sum(image.split is not None for image in kept)
    if options.json:
        reasons = [{"image": image_id, "reason": reason} for image_id, reason in failed]
        print_json({"images": len(kept), "labels": labels, "files_fetched": fetched, "failed": reasons})
    else:
        print_failures(failed)
        say(f"{out}: {len(kept)} images, {labels} labels; {fetched} files fetched, failed: {len(failed)}")
    return PARTLY if failed else DONE


def fetch_image(client: Client, image: PoolImage, out: Path) -> int:
    """Write images/ID.SUFFIX unless it exists; return the number of files written. Raises CallError."""
    from service.client.folders.written_files import write_file  # noqa: PLC0415

    suffix = SUFFIXES.get(image.media_type, f".{image.media_type.partition('/')[2]}")
    path = out / "images" / f"{image.id}{suffix}"
    # A file that is there is complete, and its name is the hash of its content.
    if path.exists():
        return 0
    write_file(path, client.image_content(image.id))
    return 1


def write_classes(client: Client, out: Path) -> None:
    """Write classes.toml with the class list of the service."""
    import tomli_w  # noqa: PLC0415

    from service.client.folders.written_files import write_file  # noqa: PLC0415

    found = client.get_classes()
    classes = [{"name": each.name, "color": list(each.color)} for each in found.classes]
    table: dict[str, Any] = {"ignore_index": found.ignore_index, "classes": classes}
    write_file(out / "classes.toml", tomli_w.dumps(table).encode())


def _fetch(client: Client, image: PoolImage, out: Path) -> tuple[PoolImage, int, str | None]:
    from service.client.call_errors import Missing  # noqa: PLC0415

    try:
        return image, fetch_image(client, image, out) + _fetch_label(client, image, out), None
    except Missing as error:
        return image, 0, str(error)


def _fetch_label(client: Client, image: PoolImage, out: Path) -> int:
    from service.client.folders.written_files import write_file  # noqa: PLC0415

    path = out / "masks" / f"{image.id}.png"
    if image.labelled_at is None:
        # It was deleted on the service; as a file, it would be taken for a label.
        path.unlink(missing_ok=True)
        return 0
    # The time of the file is that of the label, which tells whether it was replaced.
    at_ns = 1000 * ((image.labelled_at - EPOCH) // timedelta(microseconds=1))
    if path.exists() and path.stat().st_mtime_ns == at_ns:
        return 0
    write_file(path, client.get_mask(image.id))
    os.utime(path, ns=(at_ns, at_ns))
    return 1


def _write_lists(out: Path, images: Sequence[PoolImage]) -> None:
    from service.client.folders.written_files import write_file  # noqa: PLC0415

    names: dict[str, list[str]] = defaultdict(list, {"labelled": [], "unlabelled": [], "val": []})
    for image in images:
        names[image.split or "unlabelled"].append(image.id)
    for split, ids in names.items():
        write_file(out / "splits" / f"{split}.txt", "".join(f"{each}\n" for each in ids).encode())
    if groups := [(image.id, image.group) for image in images if image.group is not None]:
        sink = io.StringIO()
        csv.writer(sink).writerows([("name", "group"), *groups])
        write_file(out / "groups.csv", sink.getvalue().encode())
