"""Texts of the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from service.api.app import create_app
from service.settings import Settings


def explained_values() -> Iterator[tuple[str, list[str], str]]:
    """Each field of a response that has a fixed list of values and a description: name, values, description."""
    schemas: dict[str, Any] = create_app(Settings()).openapi()["components"]["schemas"]
    for name, schema in schemas.items():
        for field, found in schema.get("properties", {}).items():
            values = found.get("enum") or schemas.get(found.get("$ref", "").rpartition("/")[2], {}).get("enum")
            if values and "description" in found:
                yield f"{name}.{field}", values, found["description"]


def test_description_that_explains_values_explains_all_of_them() -> None:
    missing = {}
    for name, values, description in explained_values():
        unnamed = [value for value in values if not re.search(rf"\b{value}", description)]
        # One that explains a single value is not a list.
        if len(values) - len(unnamed) > 1 and unnamed:
            missing[name] = unnamed
    assert missing == {}
