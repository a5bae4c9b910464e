"""The starter model of `make serve` is small, valid, and described by its model card."""

import json
from pathlib import Path

import service
from exporter.verify import verify
from service.models.bundle import read_bundle

STARTER = Path(service.__file__).parent / "starter"
MAX_BYTES = 12_000_000


def test_size_suits_a_repository() -> None:
    assert sum(file.stat().st_size for file in STARTER.iterdir()) <= MAX_BYTES


def test_exporter_and_service_can_read_it() -> None:
    verify(STARTER)
    assert [entry.name for entry in read_bundle(STARTER).manifest.classes][:4] == ["sky", "building", "pole", "road"]


def test_recipe_contains_no_paths() -> None:
    recipe = json.loads((STARTER / "manifest.json").read_text())["provenance"]["recipe"]
    paths = [recipe["data"]["root"], recipe["init"], recipe["model"]["weights"]]
    assert [path for path in paths if "/" in path] == []


def test_model_card_lists_miou_and_classes() -> None:
    manifest, card = json.loads((STARTER / "manifest.json").read_text()), (STARTER / "MODEL_CARD.md").read_text()
    assert f"{manifest['metrics']['miou']:.3f}" in card
    assert all(entry["name"] in card for entry in manifest["classes"])
