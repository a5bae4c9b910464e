"""Files that the SDKs of labelling tools wrote are imported to the pixel. `make formats` writes them anew."""

from pathlib import Path

import pytest

from tests.trainer.data.imports.sdks.compare import compare

# pycocotools implements __array__ without the `copy` argument of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CASES = Path(__file__).with_name("sdks") / "cases"


@pytest.mark.parametrize("name", sorted(path.name for path in CASES.iterdir()))
def test_export_of_a_tool_gives_the_masks_that_were_drawn(name: str, tmp_path: Path) -> None:
    compared = compare(CASES / name, tmp_path / "dataset")
    assert not compared.differences, compared.output
