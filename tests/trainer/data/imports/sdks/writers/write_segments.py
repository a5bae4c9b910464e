"""Segments.ai: a release's JSON with the files that its package downloads (from this process), and COCO from these."""

import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

from segments import SegmentsDataset
from segments.utils import bitmap2file, export_dataset

from tests.trainer.data.imports.sdks.case import Case, new_source, scene_masks
from tests.trainer.data.imports.sdks.scene import ANNOTATED, CLASSES, COLORS, Picture, painted

TOOL = f"segments-ai {version('segments-ai')}"


def main(root: Path) -> None:
    """Write the cases below a folder."""
    masks = scene_masks(ANNOTATED)
    with tempfile.TemporaryDirectory() as served, server(Path(served)) as address:
        release = write_release(Path(served), address)
        source = new_source(root, "segments-release")
        text = release.read_text().replace(address, "https://example.org")
        (source / release.name).write_text(text)
        SegmentsDataset(str(release), segments_dir=str(source))
        Case(TOOL, "release, and the files of SegmentsDataset").write(source, masks)
        for form in ("coco-panoptic", "coco-instance"):
            source = new_source(root, f"segments-{form}")
            dataset = SegmentsDataset(str(release), segments_dir=str(source))
            export_dataset(dataset, export_folder=str(source), export_format=form)
            Case(TOOL, form).write(source, masks)


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback, and yield its address."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def write_release(folder: Path, address: str) -> Path:
    """A release as the server gives it."""
    samples = []
    for picture in ANNOTATED:
        picture.save(folder / picture.file_name)
        instances_HW = painted(
            picture.shape, [(number, region.bits(picture.shape)) for number, region in enumerate(picture.regions, 1)]
        )
        (folder / f"{picture.stem}-label.png").write_bytes(bitmap2file(instances_HW).getvalue())
        samples.append(sample(picture, address))
    categories = [
        {"id": index, "name": name, "color": list(color)}
        for index, (name, color) in enumerate(zip(CLASSES, COLORS, strict=True), 1)
    ]
    dataset = {
        "owner": "jane",
        "name": "fields",
        "task_type": "segmentation-bitmap",
        "task_attributes": {"format_version": "0.1", "categories": categories},
        "labelsets": [{"name": "ground-truth", "description": ""}],
        "samples": samples,
    }
    release = folder / "fields-v1.json"
    release.write_text(json.dumps({"name": "v1", "description": "", "dataset": dataset}))
    return release


def sample(picture: Picture, address: str) -> dict[str, Any]:
    """One image of the release."""
    attributes = {
        "format_version": "0.1",
        "annotations": [{"id": number, "category_id": region.id} for number, region in enumerate(picture.regions, 1)],
        "segmentation_bitmap": {"url": f"{address}/{picture.stem}-label.png"},
    }
    image = {"image": {"url": f"{address}/{picture.file_name}"}}
    known = {"uuid": f"uuid-{picture.stem}", "name": picture.file_name, "metadata": {}}
    labels = {"ground-truth": {"label_status": "LABELED", "attributes": attributes}}
    return {**known, "attributes": image, "labels": labels}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
