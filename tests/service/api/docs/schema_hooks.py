"""Hooks for Schemathesis, loaded in its process: files to send, and a deserializer for JSON lines."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import strategies as st

from tests.service.broken_files import FILES, damaged
from tests.service.tiny_bundle import write_bundle, zipped

THIRD = "20260103T000000-cccccccc"


def _bundle() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return zipped(write_bundle(Path(folder) / "bundle", version=THIRD))


IMAGES = st.sampled_from(sorted(FILES)).map(FILES.__getitem__)
BROKEN = IMAGES.flatmap(damaged)

# Format `binary`: a file in a form, or tensors after JSON.
schemathesis.openapi.format("binary", st.one_of(IMAGES, BROKEN, st.binary()))
for name in ("jpeg", "png", "webp", "bmp", "tiff", "avif"):
    schemathesis.openapi.media_type(f"image/{name}", st.one_of(IMAGES, BROKEN, st.binary()))
schemathesis.openapi.media_type("application/zip", st.one_of(st.just(_bundle()), st.just(_bundle()).flatmap(damaged)))


@schemathesis.deserializer("application/x-ndjson")
def read_lines(_context: Any, response: Any) -> Any:
    """Return the last line: the schema describes a single line."""
    return json.loads(response.content.splitlines()[-1])
