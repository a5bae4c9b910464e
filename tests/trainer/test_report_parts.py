"""What the report is made of: the history of a run, its words, its tables and its charts."""

# K classes

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import torch

from tests.trainer.conftest import TINY_VIT, make_recipe
from trainer.data.layouts import open_dataset
from trainer.evaluation.audit import Audit, ClassAudit
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.metrics import Scores, scores
from trainer.models.segmenter import build_segmenter
from trainer.report.charts import Line, line_chart, reliability_diagram
from trainer.report.classes import class_rows, confusions, normalised
from trainer.report.history import history, read_events
from trainer.report.words import advice, trend
from trainer.report.write import write_report
from trainer.run_data import RunData
from trainer.taxonomy import Taxonomy

NAMES = ("road", "fence", "pole", "tram")
TAXONOMY = Taxonomy(NAMES, ((0, 0, 0), (9, 9, 9), (50, 50, 50), (200, 10, 10)))


def found() -> Scores:
    """A road that is found, a fence and a pole that are taken for road, and no tram anywhere."""
    rows = [[900, 10, 0, 0], [90, 10, 0, 0], [5, 4, 1, 0], [0, 0, 0, 0]]
    sums_3M = torch.zeros((3, 15), dtype=torch.float64)
    sums_3M[:, 14] = torch.tensor([100.0, 99.0, 60.0])
    return scores(torch.tensor(rows), NAMES, 3, boundary_2K=torch.ones((2, 4)).long(), calibration_3M=sums_3M)


def audit(purity: float, mask_ratio: float) -> Audit:
    each = {name: ClassAudit(0.25, mask_ratio, purity) for name in NAMES}
    return Audit(0.95, 4, mask_ratio, purity, "the validation images", 2, each)


def test_of_steps_that_were_run_again_the_last_word_counts(tmp_path: Path) -> None:
    assert read_events(tmp_path / "events.jsonl") == []
    events = [
        {"event": "start", "steps": 4, "step": 0, "device": "cpu"},
        {"event": "progress", "step": 1, "loss": 4.0},
        {"event": "progress", "step": 2, "loss": 3.0},
        {"event": "evaluation", "step": 2, "miou": 0.1, "student": {"miou": 0.2}},
        {"event": "start", "steps": 4, "step": 1, "device": "cuda"},
        {"event": "progress", "step": 2, "loss": 2.5},
        {"event": "evaluation", "step": 2, "miou": 0.3},
        {"event": "progress", "step": 3, "loss": None},
        {"event": "done", "miou": 0.3},
    ]
    lines = [json.dumps(event) for event in events]
    (tmp_path / "events.jsonl").write_text("\n".join([*lines[:4], '{"event": "progress", "st', *lines[4:]]))
    said = history(read_events(tmp_path / "events.jsonl"))
    assert said.series("loss") == [(1, 4.0), (2, 2.5)]
    assert said.miou() == [(2, 0.3)]
    assert said.miou("student") == [(2, 0.2)]
    assert (said.start["device"], said.starts) == ("cpu", 2)


def test_confusions_are_named_by_what_they_cost() -> None:
    pairs = confusions(found(), NAMES)
    assert [(each.truth, each.prediction, each.pixels) for each in pairs[:2]] == [
        ("fence", "road", 90),
        ("road", "fence", 10),
    ]
    assert pairs[0].part == pytest.approx(0.9)
    assert len(pairs) == 4, "and none that never happens"
    sums_K = normalised(found()).sum(axis=1)
    assert sums_K.tolist() == pytest.approx([1, 1, 1, 0])


def test_advice_names_weak_rare_and_absent_classes() -> None:
    frequency_K = torch.tensor([0.9, 0.09, 0.005, 0.0])
    rows = class_rows(TAXONOMY, frequency_K, found(), None)
    lines = advice(rows, found(), confusions(found(), NAMES), None)
    fence, pole, tram, confidence = (
        next(line for line in lines if word in line) for word in ("fence", "pole", "tram", "confidence")
    )
    assert "90% of it is taken for road" in fence
    assert "only 0.50% of the labelled pixels. Label more" in pole
    assert "Not in the validation images" in tram
    assert "too high by 39%" in confidence
    assert not any("road:" in line for line in lines)


@pytest.mark.parametrize(
    ("purity", "mask_ratio", "says"),
    [(0.4, 0.5, "raise unimatch.confidence_threshold"), (0.9, 0.1, "lower unimatch.confidence_threshold")],
)
def test_advice_looks_at_the_pseudo_labels(purity: float, mask_ratio: float, says: str) -> None:
    rows = class_rows(TAXONOMY, torch.full((4,), 0.25), None, audit(purity, mask_ratio))
    lines = advice(rows, None, (), audit(purity, mask_ratio))
    assert any(says in line for line in lines)
    assert any("wrong more often than right" in line for line in lines) == (purity < 0.5)


def test_where_nothing_is_wrong_the_advice_says_so() -> None:
    rows = class_rows(TAXONOMY, torch.full((4,), 0.25), None, audit(0.9, 0.9))
    assert advice(rows, None, (), audit(0.9, 0.9))[0].startswith("Nothing stands out")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([0.2], "Too few evaluations"),
        ([0.2, 0.3, 0.4], "still rising: +0.100"),
        ([0.40, 0.401, 0.402], "levelled off"),
        ([0.3, 0.5, 0.4], "best at step 2 with 0.500 and then fell to 0.400"),
    ],
)
def test_the_trend_is_put_into_words(values: list[float], says: str) -> None:
    assert says in trend(list(enumerate(values, 1)))


def test_a_chart_draws_its_points_within_its_frame_and_says_what_it_shows() -> None:
    points = [(float(step), 1 / step) for step in range(1, 1001)]
    chart = line_chart("Loss & more", [Line("loss", points, smooth=True), Line("dot", [(5.0, 0.5)]), Line("none", [])])
    figure = ET.fromstring(chart)  # noqa: S314 (our own)
    svg = figure.find("svg")
    assert svg is not None
    assert svg.get("aria-label", "").startswith("Loss & more. loss from 1 to 0.001; dot from 0.5 to 0.5")
    drawn = [line.get("points", "").split() for line in svg.iter("polyline")]
    assert len(drawn) == 2, "single steps and their mean"
    assert all(len(places) <= 300 for places in drawn)
    for place in (place for places in drawn for place in places):
        x, y = map(float, place.split(","))
        assert 56 <= x <= 508
        assert 12 <= y <= 210
    assert len(list(svg.iter("circle"))) == 1
    assert line_chart("nothing", [Line("none", [])]) == ""


def test_the_reliability_diagram_has_a_bar_for_each_bin_with_pixels() -> None:
    svg = ET.fromstring(reliability_diagram(found().calibration))  # noqa: S314 (our own)
    bars = list(svg.iter("rect"))
    assert len(bars) == 1
    assert bars[0].findtext("title") == "confidence 0.99: 60% right, 100 pixels"


@pytest.mark.parametrize("measured", [True, False])
def test_many_classes_and_runs_that_judge_on_nothing_have_a_report_too(
    dataset: Path, tmp_path: Path, measured: bool
) -> None:
    text = (dataset / "classes.toml").read_text()
    more = [f'[[classes]]\nname = "class {index} <&>"\ncolor = [{index}, 2, 3]\n' for index in range(2, 150)]
    (dataset / "classes.toml").write_text(text + "".join(more))
    data, recipe = open_dataset(dataset), make_recipe(dataset, "supervised", TINY_VIT)
    val = data.split("val") if measured else ()
    run = RunData(data, data.split("labelled"), val, data, (), "0" * 64)
    model = build_segmenter(recipe.model, 150).eval()
    judged = evaluate(model, data, val) if measured else None
    path = write_report(
        tmp_path / "report.html", recipe=recipe, data=run, model=model, scores=judged, events=[], audit=None
    )
    page = path.read_text(encoding="utf-8")
    assert "class 149 &lt;&amp;&gt;" in page
    assert "<&>" not in page
    assert ('class="heat"' in page) == measured
    assert ("The run judged on nothing" in page) == (not measured)
