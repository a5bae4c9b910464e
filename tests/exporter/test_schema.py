"""The schema is the manifest's, and bundles fit it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from exporter.schema import FILE, manifest_schema, text
from tests.exporter.conftest import GOLDEN

STARTER = Path(__file__).parents[2] / "service" / "starter"


def test_the_file_is_what_the_classes_say() -> None:
    assert FILE.read_text() == text(), "run python -m exporter.schema > exporter/manifest.schema.json"


@pytest.mark.parametrize("bundle", [GOLDEN, STARTER])
def test_bundles_in_the_world_fit(bundle: Path) -> None:
    jsonschema.validate(json.loads((bundle / "manifest.json").read_text()), manifest_schema())


def test_a_new_bundle_fits(vit_bundle: Path) -> None:
    jsonschema.validate(json.loads((vit_bundle / "manifest.json").read_text()), manifest_schema())


def drop_classes(manifest: dict[str, Any]) -> None:
    del manifest["classes"]


def unknown_precision(manifest: dict[str, Any]) -> None:
    manifest["artifacts"][0]["precision"] = "int4"


def other_format(manifest: dict[str, Any]) -> None:
    manifest["format_version"] = 2


@pytest.mark.parametrize("spoil", [drop_classes, unknown_precision, other_format])
def test_what_is_none_does_not(spoil: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((GOLDEN / "manifest.json").read_text())
    spoil(manifest)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, manifest_schema())
