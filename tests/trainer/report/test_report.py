"""report.html of a real run: well-formed, without external resources, and with the figures of the run."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
import tomli_w

from tests.trainer.conftest import make_recipe
from trainer.__main__ import main
from trainer.report.advice import trend

VOID = {"meta", "img", "br", "link", "hr", "input", "source"}


class Page(HTMLParser):
    """Text, headings, references to resources, images without description, and open tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.fetched, self.open, self.headings = "", list[str](), list[str](), list[str]()
        self.undescribed = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {"src", "srcset", "xlink:href"} | ({"href"} if tag != "a" else set())
        self.fetched += [value or "" for name, value in attrs if name in names]
        self.undescribed += tag == "img" and not dict(attrs).get("alt")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in {"h1", "h2"}:
            self.headings.append(data.strip())
        if "style" not in self.open:
            self.text += data


def train(dataset: Path, out: Path, method: str) -> Page:
    recipe = make_recipe(dataset, method, steps=6, evaluate_every=2, report=True)
    (out.parent / "recipe.toml").write_text(tomli_w.dumps(recipe.as_dict()))
    assert main(["train", str(out.parent / "recipe.toml"), "--out", str(out)]) == 0
    return Page((out / "report.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("method", ["supervised", "unimatch_v2"])
def test_report_is_well_formed_and_loads_no_resources(dataset: Path, tmp_path: Path, method: str) -> None:
    page = train(dataset, tmp_path / "run", method)
    assert page.open == []
    assert page.undescribed == 0
    assert [source for source in page.fetched if not source.startswith(("data:", "#"))] == []
    pictures = [source for source in page.fetched if source.startswith("data:")]
    assert len(pictures) >= 2 * 4, "image, truth, prediction and errors of each validation image"
    assert str(tmp_path) not in (tmp_path / "run/report.html").read_text()
    for heading in ("Curves", "Classes", "Confusion matrix", "Calibration", "Validation images"):
        assert heading in page.headings
    assert ("Pseudo-labels" in page.headings) == (method != "supervised")
    assert page.headings[-1] == "What to do next"


def test_report_has_the_figures_of_the_run(dataset: Path, tmp_path: Path) -> None:
    page = train(dataset, tmp_path / "run", "unimatch_v2")
    found = json.loads((tmp_path / "run/evaluation.json").read_text())
    for figure in (found["miou"], found["boundary_iou"], *found["per_class"].values()):
        assert f"{figure:.3f}" in page.text
    assert f"{100 * found['pixel_accuracy']:.1f}%" in page.text
    assert found["miou_over"] == "2 of 2 classes"
    assert page.text.count("over 2 of 2 classes") == 3, "the tile, the trend and the mean of the table"
    assert page.text.count("over the 2 of 2 classes in the truth") == 2, "each image of the gallery"
    assert "4 labelled" in " ".join(page.text.split())


def test_report_command_rewrites_the_report_from_the_run_folder(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = train(dataset, tmp_path / "run", "supervised")
    (tmp_path / "run/report.html").unlink()
    moved = dataset.rename(tmp_path / "elsewhere")
    assert main(["report", str(tmp_path / "run"), "--data", str(moved)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "run/report.html")
    again = Page((tmp_path / "run/report.html").read_text(encoding="utf-8"))
    assert again.headings[1:] == page.headings[1:]


@pytest.mark.parametrize(
    ("miou", "expected"), [([0.2, 0.3, 0.4], "still rising"), ([0.4, 0.401, 0.4], ""), ([0.5, 0.45, 0.3], "")]
)
def test_trend_is_rising_only_if_the_miou_rises(miou: list[float], expected: str) -> None:
    text = trend(list(enumerate(miou)))
    assert (expected in text) if expected else ("still rising" not in text)
