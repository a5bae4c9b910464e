"""A bundle has one name, whether Triton serves what the exporter wrote or the service answers in Triton's protocol."""

import pytest

from exporter.triton.repository import ENCODED, safe_name
from service.open_inference import model_names


@pytest.mark.parametrize(
    "name", ["street-scenes", "Zellen, gefärbt", "a.b/c d", "__x--", "x" * 200, "_" + "y" * 120, "9"]
)
def test_a_bundle_is_called_the_same(name: str) -> None:
    assert model_names.safe_name(name) == safe_name(name)
    assert model_names.ENCODED == ENCODED


def test_a_name_without_letters_is_none_in_both() -> None:
    assert model_names.safe_name("…") == ""
    with pytest.raises(ValueError, match="no letter"):
        safe_name("…")
