"""Generate manifest.schema.json from the manifest's pydantic models: `python -m exporter.schema`."""

import json
from pathlib import Path

from pydantic.json_schema import GenerateJsonSchema

from exporter.manifest import Manifest

FILE = Path(__file__).with_name("manifest.schema.json")


def schema_text() -> str:
    """The contents of manifest.schema.json."""
    schema = {"$schema": GenerateJsonSchema.schema_dialect, **Manifest.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(schema_text(), encoding="utf-8")
