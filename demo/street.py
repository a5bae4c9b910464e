"""A real photograph, segmented by the starter model beside the model of the textures."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from demo.client import Client

STARTER = Path(__file__).parents[1] / "service" / "starter"
# Street scenes, where a checkout of this repository has them as a neighbour.
STREETS = Path("../shared/camvid/images")


def find_photo(given: Path | None) -> Path | None:
    """The photograph to segment; None where there is none, or no starter model."""
    if not (STARTER / "manifest.json").exists():
        return None
    return given or next(iter(sorted(STREETS.glob("*.*"))), None)


def segment_street(client: Client, photo: Path, out: Path) -> list[Path]:
    """Bring the starter model to the running service, ask it by its version, and save mask and overlay in `out`."""
    version = client.upload(_packed(STARTER))
    mask, overlay = out / "photo-mask.png", out / "photo-overlay.jpg"
    mask.write_bytes(client.segment(photo, model=version))
    overlay.write_bytes(client.segment(photo, "image/jpeg", model=version))
    return [mask, overlay]


def _packed(bundle: Path) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for file in sorted(bundle.iterdir()):
            if not file.name.startswith((".", "_")):
                archive.write(file, file.name)
    return sink.getvalue()
