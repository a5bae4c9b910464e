"""A bundle has the same model name in an exported Triton repository and in the service's Open Inference Protocol."""

import pytest

from exporter.triton.repository import ENCODED, safe_name
from service.open_inference import model_names


@pytest.mark.parametrize(
    "name", ["street-scenes", "Zellen, gefärbt", "a.b/c d", "__x--", "x" * 200, "_" + "y" * 120, "9"]
)
def test_exporter_and_service_derive_the_same_name(name: str) -> None:
    assert model_names.safe_name(name) == safe_name(name)
    assert model_names.ENCODED == ENCODED


def test_name_without_letters_is_rejected() -> None:
    assert model_names.safe_name("…") == ""
    with pytest.raises(ValueError, match="no letter"):
        safe_name("…")
