"""Upload versions to swap: copies of a bundle, one of which is damaged after the upload."""

import json
import shutil
from pathlib import Path

from tests.service.tiny_bundle import zipped
from tests.soak.service import Service

NAMES = ("20260101T000000-0000000a", "20260101T000000-0000000b", "20260101T000000-0000000c")


def upload_versions(service: Service, bundle: Path, data_dir: Path, folder: Path) -> tuple[tuple[str, str], str]:
    """Upload three copies of a bundle and damage the stored graph of the last.

    Returns:
        The two valid versions, and the broken one.
    """
    for name in NAMES:
        copy = folder / name
        shutil.copytree(bundle, copy)
        manifest = json.loads((copy / "manifest.json").read_text())
        (copy / "manifest.json").write_text(json.dumps(manifest | {"version": name}))
        status, _, body = service.request("POST", "/v1/models", zipped(copy))
        if status != 201:
            raise AssertionError(f"uploading {name}: {status} {body!r}")
    (graph,) = (data_dir / "models").rglob(f"*{NAMES[2]}*/model.onnx")
    with graph.open("r+b") as file:
        file.seek(graph.stat().st_size // 2)
        file.write(b"damaged")
    return NAMES[:2], NAMES[2]
