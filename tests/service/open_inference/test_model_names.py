"""Names and versions."""

from __future__ import annotations

import pytest

from service.errors import ModelNotFound
from service.open_inference.model_names import choose, names, numbered, understand
from service.storage.tables import Model


def stored(*rows: tuple[str, str]) -> list[Model]:
    """Rows as the store lists them: the newest first."""
    return [Model(version=version, name=name, state="ready") for version, name in reversed(rows)]


def test_every_name_leads_to_its_versions() -> None:
    entries = numbered(stored(("v1", "street scenes"), ("v2", "cells"), ("v3", "street scenes")))
    assert [(entry.number, entry.row.version) for entry in entries] == [(1, "v1"), (2, "v2"), (3, "v3")]
    families = [entry.family for entry in entries]
    assert {name.text for name in names(families)} == {
        *("seg", "seg_bytes", "cells", "cells_encoded", "street_scenes", "street_scenes_encoded"),
    }
    streets = understand("street_scenes_encoded", families)
    assert streets.kind == "encoded"
    assert choose("3", entries, streets).row.version == "v3"
    assert choose("v1", entries, streets).number == 1
    with pytest.raises(ModelNotFound, match="no version '2'"):
        choose("2", entries, streets)
    assert choose("2", entries, understand("seg", families)).row.version == "v2"
    with pytest.raises(ModelNotFound, match="GET /v2/models"):
        understand("street scenes", families)


def test_a_name_with_two_meanings_has_one() -> None:
    families = ["cells", "cells_encoded", "seg", ""]
    assert understand("cells_encoded", families).family == "cells"
    assert understand("cells_encoded_encoded", families).family == "cells_encoded"
    assert understand("seg", families).family is None
    assert understand("seg_encoded", families).family == "seg"
    assert len({name.text for name in names(families)}) == len(names(families))


def test_a_version_that_looks_like_a_number_gives_way_to_the_number() -> None:
    entries = numbered(stored(("2", "a"), ("b", "a"), ("77", "a")))
    seg = understand("seg", ["a"])
    assert choose("2", entries, seg).row.version == "b"
    assert choose("77", entries, seg).number == 3
