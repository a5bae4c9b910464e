"""`maskloop labels`: count the labels, and list what to label next."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.client.commands.connection import add_connection, connect
from service.client.commands.exit_codes import DONE
from service.client.commands.pull_command import fetch_image, write_classes
from service.client.commands.terminal import note, print_json, print_table, say

if TYPE_CHECKING:
    from service.client.answers import PoolImage
    from service.client.sync_client import Client

NOT_ANALYSED = "not-analysed"
DESCRIPTION = """Count the labels of the pool, and list the unlabelled images in the order in which labels teach the
active model most. With --out, fetch these images as a data set: draw their masks into DATASET/masks/ID.png, then send
them with `maskloop push DATASET`."""


def add_labels(commands: Any) -> None:
    """Add the command."""
    command = commands.add_parser("labels", help="count the labels, list what to label next", description=DESCRIPTION)
    command.add_argument("--limit", type=int, default=20, metavar="N", help="number of images, 1 to 1000 (default: 20)")
    command.add_argument("--out", type=Path, metavar="DATASET", help="fetch these images and classes.toml")
    add_connection(command)
    command.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print the numbers and the images; fetch them if a folder is given."""
    with connect(options) as client:
        counts = client.pool_page(limit=1)
        images = _next_images(client, options.limit)
        if options.out:
            fetched = sum(fetch_image(client, image, options.out) for image in images)
            write_classes(client, options.out)
            note(f"{options.out}: {fetched} images fetched, {len(images) - fetched} were there")
    if options.json:
        numbers = {"labelled": counts.labelled, "val": counts.val, "unlabelled": counts.unlabelled}
        print_json({**numbers, "next": [image.model_dump(mode="json") for image in images]})
        return DONE
    say(f"labelled {counts.labelled}, val {counts.val}, unlabelled {counts.unlabelled}")
    if images:
        rows = ((image.id, f"{image.width}x{image.height}", image.created_at) for image in images)
        print_table(("NEXT TO LABEL", "SIZE", "SINCE"), rows)
    return DONE


def _next_images(client: Client, limit: int) -> Sequence[PoolImage]:
    from service.client.call_errors import Refused  # noqa: PLC0415 - slow

    try:
        return client.pool_page(order="uncertain", limit=limit).images
    except Refused as error:
        if error.slug != NOT_ANALYSED:
            raise
        note(str(error))
        return []
