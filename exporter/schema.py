"""The JSON schema of manifest.json, made from the manifest's own classes: `python -m exporter.schema`.

exporter/manifest.schema.json is what it prints; a test holds the two together.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from exporter import manifest

FILE = Path(__file__).with_name("manifest.schema.json")
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def manifest_schema() -> dict[str, Any]:
    """The schema, with the fields' docstrings as descriptions."""
    for kind in vars(manifest).values():
        if dataclasses.is_dataclass(kind):
            kind.__pydantic_config__ = ConfigDict(use_attribute_docstrings=True)  # type: ignore[union-attr]
    found: dict[str, Any] = TypeAdapter(manifest.Manifest).json_schema()
    found["properties"]["format_version"]["const"] = manifest.FORMAT_VERSION
    return {"$schema": DIALECT, **found}


def text() -> str:
    """As the file holds it."""
    return json.dumps(manifest_schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
