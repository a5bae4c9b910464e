"""manifest.schema.json is generated from the models, and bundles conform to it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from exporter.schema import FILE, schema_text
from tests.exporter.conftest import GOLDEN

STARTER = Path(__file__).parents[2] / "service" / "starter"
SCHEMA = json.loads(schema_text())


def test_committed_schema_equals_the_generated_one() -> None:
    assert FILE.read_text() == schema_text(), "run python -m exporter.schema"


@pytest.mark.parametrize("bundle", [GOLDEN, STARTER])
def test_existing_bundles_conform(bundle: Path) -> None:
    jsonschema.validate(json.loads((bundle / "manifest.json").read_text()), SCHEMA)


def test_new_bundle_conforms(vit_bundle: Path) -> None:
    jsonschema.validate(json.loads((vit_bundle / "manifest.json").read_text()), SCHEMA)


def drop_classes(manifest: dict[str, Any]) -> None:
    del manifest["classes"]


def unknown_precision(manifest: dict[str, Any]) -> None:
    manifest["artifacts"][0]["precision"] = "int4"


def other_format(manifest: dict[str, Any]) -> None:
    manifest["format_version"] = 2


@pytest.mark.parametrize("spoil", [drop_classes, unknown_precision, other_format])
def test_invalid_manifests_do_not_conform(spoil: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((GOLDEN / "manifest.json").read_text())
    spoil(manifest)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, SCHEMA)
