"""report.html of a real run: whole, self-contained, and with the figures that the run found."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
import tomli_w

from tests.trainer.conftest import make_recipe
from trainer.__main__ import main
from trainer.report.words import trend

VOID = {"meta", "img", "br", "link", "hr", "input", "source"}


class Page(HTMLParser):
    """What a browser would find: text, what is fetched, pictures without a description, tags left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.fetched, self.open, self.headings = "", list[str](), list[str](), list[str]()
        self.undescribed = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.fetched += [value or "" for name, value in attrs if name in {"src", "srcset"}]
        self.fetched += [found.get("href") or ""] if tag in {"link", "script", "use"} else []
        self.undescribed += tag == "img" and not found.get("alt")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in {"h1", "h2"}:
            self.headings.append(data.strip())
        if "style" not in self.open:
            self.text += data


def trained(dataset: Path, out: Path, method: str) -> Page:
    recipe = make_recipe(dataset, method, steps=6, evaluate_every=2)
    (out.parent / "recipe.toml").write_text(tomli_w.dumps(recipe.as_dict()))
    assert main(["train", str(out.parent / "recipe.toml"), "--out", str(out)]) == 0
    return Page((out / "report.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("method", ["supervised", "unimatch_v2"])
def test_the_report_is_whole_and_fetches_nothing(dataset: Path, tmp_path: Path, method: str) -> None:
    page = trained(dataset, tmp_path / "run", method)
    assert page.open == []
    assert page.undescribed == 0
    assert [source for source in page.fetched if not source.startswith("data:")] == []
    assert len(page.fetched) >= 2 * 4, "photograph, truth, prediction and errors of each validation image"
    assert str(tmp_path) not in (tmp_path / "run/report.html").read_text()
    for heading in ("Curves", "Class by class", "What is taken for what", "Validation images"):
        assert heading in page.headings
    assert ("What the unlabelled images teach" in page.headings) == (method != "supervised")


def test_the_report_has_the_figures_of_the_run(dataset: Path, tmp_path: Path) -> None:
    page = trained(dataset, tmp_path / "run", "unimatch_v2")
    found = json.loads((tmp_path / "run/evaluation.json").read_text())
    for figure in (found["miou"], found["boundary_iou"], *found["per_class"].values()):
        assert f"{figure:.3f}" in page.text
    assert f"{100 * found['pixel_accuracy']:.1f}%" in page.text
    assert "4 labelled" in " ".join(page.text.split())


def test_a_report_is_written_anew_from_the_run_folder(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = trained(dataset, tmp_path / "run", "supervised")
    (tmp_path / "run/report.html").unlink()
    moved = dataset.rename(tmp_path / "elsewhere")
    assert main(["report", str(tmp_path / "run"), "--data", str(moved)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "run/report.html")
    again = Page((tmp_path / "run/report.html").read_text(encoding="utf-8"))
    assert again.headings[1:] == page.headings[1:]


@pytest.mark.parametrize(
    ("miou", "says"), [([0.2, 0.3, 0.4], "still rising"), ([0.4, 0.401, 0.4], ""), ([0.5, 0.45, 0.3], "")]
)
def test_a_curve_is_put_into_words(miou: list[float], says: str) -> None:
    text = trend(list(enumerate(miou)))
    assert (says in text) if says else ("still rising" not in text)
