"""The model that `make serve` begins with: small, whole, and honest about itself."""

import json
from pathlib import Path

import service
from exporter.verify import verify
from service.models.bundle import read_bundle

STARTER = Path(service.__file__).parent / "starter"
LARGEST_BYTES = 12_000_000


def test_it_is_small_enough_for_a_repository() -> None:
    assert sum(file.stat().st_size for file in STARTER.iterdir()) <= LARGEST_BYTES


def test_both_readers_accept_it() -> None:
    verify(STARTER)
    assert [entry.name for entry in read_bundle(STARTER).manifest.classes][:4] == ["sky", "building", "pole", "road"]


def test_it_names_no_folder_of_the_machine_that_made_it() -> None:
    recipe = json.loads((STARTER / "manifest.json").read_text())["provenance"]["recipe"]
    paths = [recipe["data"]["root"], recipe["init"], recipe["model"]["weights"]]
    assert [path for path in paths if "/" in path] == []


def test_its_card_says_how_good_it_is_class_by_class() -> None:
    manifest, card = json.loads((STARTER / "manifest.json").read_text()), (STARTER / "MODEL_CARD.md").read_text()
    assert f"{manifest['metrics']['miou']:.3f}" in card
    assert all(entry["name"] in card for entry in manifest["classes"])
