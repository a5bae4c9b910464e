"""Versions to swap: copies of a bundle under other names, and one that breaks after it has been accepted."""

import io
import json
import shutil
import zipfile
from pathlib import Path

from tests.soak.service import Service

NAMES = ("20260101T000000-0000000a", "20260101T000000-0000000b", "20260101T000000-0000000c")


def upload_versions(service: Service, bundle: Path, data_dir: Path, folder: Path) -> tuple[tuple[str, str], str]:
    """Put three copies of a bundle into a service, and spoil the graph of the last on its disk.

    Returns:
        The two sound versions, and the broken one.
    """
    for name in NAMES:
        copy = folder / name
        shutil.copytree(bundle, copy)
        manifest = json.loads((copy / "manifest.json").read_text())
        (copy / "manifest.json").write_text(json.dumps(manifest | {"version": name}))
        status, _, body = service.ask("POST", "/v1/models", _zipped(copy))
        if status != 201:
            raise AssertionError(f"uploading {name}: {status} {body!r}")
    (graph,) = (data_dir / "models").rglob(f"*{NAMES[2]}*/model.onnx")
    with graph.open("r+b") as file:
        file.seek(graph.stat().st_size // 2)
        file.write(b"spoilt")
    return NAMES[:2], NAMES[2]


def _zipped(folder: Path) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return sink.getvalue()
