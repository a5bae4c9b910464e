"""Resolution of model names and versions."""

from __future__ import annotations

import pytest

from service.errors import ModelNotFound
from service.open_inference.model_names import StoreEntry, list_names, number_versions, resolve_name, select_version
from service.storage.tables import Model


def store(*rows: tuple[str, str]) -> list[StoreEntry]:
    """Number versions, given oldest first as (version, name); the store lists them newest first."""
    return number_versions([Model(version=version, name=name, state="ready") for version, name in reversed(rows)])


def test_names_resolve_to_their_versions() -> None:
    entries = store(("v1", "street scenes"), ("v2", "cells"), ("v3", "street scenes"))
    assert [(entry.number, entry.row.version) for entry in entries] == [(1, "v1"), (2, "v2"), (3, "v3")]
    assert [name.text for name in list_names(entries)] == [
        *("cells", "cells_encoded", "seg", "seg_bytes", "street_scenes", "street_scenes_encoded"),
    ]
    streets = resolve_name("street_scenes_encoded", entries)
    assert streets.kind == "encoded"
    assert select_version("3", entries, streets).row.version == "v3"
    assert select_version("v1", entries, streets).number == 1
    with pytest.raises(ModelNotFound, match="no version '2'"):
        select_version("2", entries, streets)
    assert select_version("2", entries, resolve_name("seg", entries)).row.version == "v2"
    with pytest.raises(ModelNotFound, match="GET /v2/models"):
        resolve_name("street scenes", entries)


def test_ambiguous_name_resolves_by_precedence() -> None:
    # The last one has no character that is allowed in a model name.
    entries = store(("1", "cells"), ("2", "cells_encoded"), ("3", "seg"), ("4", "\N{HORIZONTAL ELLIPSIS}"))
    assert resolve_name("cells_encoded", entries).bundle_name == "cells"
    assert resolve_name("cells_encoded_encoded", entries).bundle_name == "cells_encoded"
    assert resolve_name("seg", entries).bundle_name is None
    assert resolve_name("seg_encoded", entries).bundle_name == "seg"
    assert len({name.text for name in list_names(entries)}) == len(list_names(entries))


def test_number_takes_precedence_over_bundle_version() -> None:
    entries = store(("2", "a"), ("b", "a"), ("77", "a"))
    seg = resolve_name("seg", entries)
    assert select_version("2", entries, seg).row.version == "b"
    assert select_version("77", entries, seg).number == 3
