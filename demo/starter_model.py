"""Segment a street photograph with the starter model, while the service keeps serving the texture model."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from demo.client import Client

STARTER = Path(__file__).parents[1] / "service" / "starter"
# Default photographs: a copy of CamVid next to the repository.
CAMVID_IMAGES = Path("../shared/camvid/images")


def find_photo(photo: Path | None) -> Path | None:
    """Return `photo`, else the first image of `CAMVID_IMAGES`; None without images or without a starter model."""
    if not (STARTER / "manifest.json").exists():
        return None
    return photo or next(iter(sorted(CAMVID_IMAGES.glob("*.*"))), None)


def segment_photo(client: Client, photo: Path, out: Path) -> list[Path]:
    """Upload the starter model, segment `photo` with that version, and write its mask and overlay to `out`."""
    with TemporaryDirectory() as folder:
        version = client.upload_bundle(Path(shutil.make_archive(f"{folder}/starter", "zip", STARTER)))
    mask, overlay = out / "photo-mask.png", out / "photo-overlay.jpg"
    mask.write_bytes(client.segment(photo, model=version))
    overlay.write_bytes(client.segment(photo, "image/jpeg", model=version))
    return [mask, overlay]
