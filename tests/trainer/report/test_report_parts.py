"""Parts of the report: history of a run, advice, tables and charts."""

# K classes

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import torch

from tests.trainer.conftest import TINY_VIT, make_recipe
from trainer.data.readers.layouts import open_dataset
from trainer.evaluation.audit import Audit, ClassAudit
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.metrics import Scores, scores
from trainer.models.segmenter import build_segmenter
from trainer.report.advice import advice, trend
from trainer.report.charts import line_chart, reliability_diagram
from trainer.report.class_table import class_rows, confusions, normalised
from trainer.report.history import build_history, read_events
from trainer.report.write import write_report
from trainer.run_data import RunData
from trainer.taxonomy import Taxonomy

NAMES = ("road", "fence", "pole", "tram")
TAXONOMY = Taxonomy(NAMES, ((0, 0, 0), (9, 9, 9), (50, 50, 50), (200, 10, 10)))


def make_scores() -> Scores:
    """Road is predicted well, fence and pole are confused with road, tram does not occur."""
    rows = [[900, 10, 0, 0], [90, 10, 0, 0], [5, 4, 1, 0], [0, 0, 0, 0]]
    sums_3M = torch.zeros((3, 15), dtype=torch.float64)
    sums_3M[:, 14] = torch.tensor([100.0, 99.0, 60.0])
    return scores(torch.tensor(rows), NAMES, 3, boundary_2K=torch.ones((2, 4)).long(), calibration_3M=sums_3M)


def make_audit(purity: float, mask_ratio: float) -> Audit:
    classes = {name: ClassAudit(0.25, mask_ratio, purity) for name in NAMES}
    return Audit(0.95, 4, mask_ratio, purity, "the validation images", 2, classes)


def test_history_keeps_the_last_event_of_a_repeated_step(tmp_path: Path) -> None:
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
    history = build_history(read_events(tmp_path / "events.jsonl"))
    assert history.series("loss") == [(1, 4.0), (2, 2.5)]
    assert history.miou() == [(2, 0.3)]
    assert history.miou("student") == [(2, 0.2)]
    assert (history.start["device"], history.starts) == ("cpu", 2)


def test_confusions_are_ordered_by_pixels() -> None:
    pairs = confusions(make_scores(), NAMES)
    assert [(each.truth, each.prediction, each.pixels) for each in pairs[:2]] == [
        ("fence", "road", 90),
        ("road", "fence", 10),
    ]
    assert pairs[0].share == pytest.approx(0.9)
    assert len(pairs) == 4, "only pairs that occur"
    sums_K = normalised(make_scores()).sum(axis=1)
    assert sums_K.tolist() == pytest.approx([1, 1, 1, 0])


def test_advice_names_weak_rare_and_absent_classes() -> None:
    frequency_K = torch.tensor([0.9, 0.09, 0.005, 0.0])
    rows = class_rows(TAXONOMY, frequency_K, make_scores(), None)
    lines = advice(rows, make_scores(), confusions(make_scores(), NAMES), None)
    fence, pole, tram, confidence = (
        next(line for line in lines if word in line) for word in ("fence", "pole", "tram", "confidence")
    )
    assert "90% of it is predicted as road" in fence
    assert "only 0.50% of the labelled pixels. Label more" in pole
    assert "no validation image shows them: tram" in tram
    assert "differ by 39% on average, and the confidence is mostly too high" in confidence
    assert not any("road:" in line for line in lines)


def test_class_that_is_only_predicted_is_reported_as_such() -> None:
    """Tram is predicted on 7 pixels of road and shown by no image: its IoU of 0 is no fault of its labels."""
    found = scores(torch.tensor([[900, 0, 0, 7], [0, 10, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]), NAMES, 3)
    rows = class_rows(TAXONOMY, torch.full((4,), 0.25), found, None)
    assert [(row.iou is None, row.in_truth) for row in rows] == [
        (False, True),
        (False, True),
        (True, False),
        (False, False),
    ]
    lines = advice(rows, found, (), None)
    assert "no validation image shows them: pole." in lines[0]
    assert "Counted as IoU 0, because they are predicted and no validation image shows them: tram." in lines[1]
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("purity", "mask_ratio", "expected"),
    [(0.4, 0.5, "raise unimatch.confidence_threshold"), (0.9, 0.1, "lower unimatch.confidence_threshold")],
)
def test_advice_reports_impure_or_scarce_pseudo_labels(purity: float, mask_ratio: float, expected: str) -> None:
    rows = class_rows(TAXONOMY, torch.full((4,), 0.25), None, make_audit(purity, mask_ratio))
    lines = advice(rows, None, (), make_audit(purity, mask_ratio))
    assert any(expected in line for line in lines)
    assert any("wrong more often than right" in line for line in lines) == (purity < 0.5)


def test_advice_without_weaknesses_recommends_more_labels() -> None:
    rows = class_rows(TAXONOMY, torch.full((4,), 0.25), None, make_audit(0.9, 0.9))
    assert advice(rows, None, (), make_audit(0.9, 0.9))[0].startswith("No weakness found")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.2], "Too few evaluations"),
        ([0.2, 0.3, 0.4], "still rising: +0.100"),
        ([0.40, 0.401, 0.402], "levelled off"),
        ([0.3, 0.5, 0.4], "best at step 2 with 0.500, then fell to 0.400"),
    ],
)
def test_trend_describes_the_miou(values: list[float], expected: str) -> None:
    assert expected in trend(list(enumerate(values, 1)))


SVG = "{http://www.w3.org/2000/svg}"


def coordinates(path: ET.Element) -> list[tuple[float, float]]:
    """Points of an SVG path of straight lines."""
    numbers = [float(word) for word in path.get("d", "").split() if word not in {"M", "L", "z"}]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def test_line_chart_draws_thinned_points_and_their_mean_inside_the_figure() -> None:
    points = [(float(step), 1 / step) for step in range(1, 1001)]
    chart = line_chart("Loss & more", {"loss": points, "dot": [(5.0, 0.5)], "none": []}, smooth=True)
    figure = ET.fromstring(chart)  # noqa: S314 (our own)
    assert figure.findtext("figcaption") == "Loss & more"
    svg = figure.find(f"{SVG}svg")
    assert svg is not None
    assert svg.get("aria-label", "").startswith("Loss & more. loss from 1 to 0.001; dot from 0.5 to 0.5")
    width, height = map(float, svg.get("viewBox", "").split()[2:])
    clipped = [path for path in svg.iter(f"{SVG}path") if path.get("clip-path")]
    lines = [path for path in clipped if "stroke: var(--s0)" in path.get("style", "")]
    assert len(lines) == 2, "single steps and their mean"
    for line in lines:
        drawn = coordinates(line)
        assert 2 <= len(drawn) <= 300
        assert all(0 < x < width and 0 < y < height for x, y in drawn)
    assert len(list(svg.iter(f"{SVG}use"))) == 2, "a marker for the single point, and one in the legend"
    texts = {text.text for text in svg.iter(f"{SVG}text")}
    assert {"loss", "dot", "step"} <= texts
    assert "none" not in texts


def test_line_chart_without_points_is_empty() -> None:
    assert line_chart("nothing", {"none": []}) == ""


def test_charts_are_reproducible_and_use_the_colours_of_the_page() -> None:
    points = [(1.0, 1.0), (2.0, 0.5)]
    chart, again = (line_chart("Loss", dict.fromkeys("abc", points), smooth=True) for _ in range(2))
    assert chart == again
    for variable in ("--s0", "--s1", "--s2", "--soft", "--rule"):
        assert f"var({variable})" in chart
    assert re.findall("#[0-9a-f]{6}[^0-9a-f]", chart) == [], "no fixed colour, which a dark page could hide"


def test_charts_of_one_page_share_no_ids() -> None:
    points = [(1.0, 1.0), (2.0, 0.5)]
    charts = line_chart("Loss", {"loss": points}) + line_chart("mIoU", {"loss": points, "dot": points[:1]})
    ids = re.findall(r'id="([^"]+)"', charts + reliability_diagram(make_scores().calibration))
    assert ids
    assert len(ids) == len(set(ids))


def test_reliability_diagram_has_a_bar_for_each_bin_with_pixels() -> None:
    svg = ET.fromstring(reliability_diagram(make_scores().calibration))  # noqa: S314 (our own)
    [bar] = [group for group in svg.iter(f"{SVG}g") if group.find(f"{SVG}title") is not None]
    assert bar.findtext(f"{SVG}title") == "confidence 0.99: 60% right, 100 pixels"
    path = bar.find(f"{SVG}path")
    assert path is not None
    assert "fill: var(--s0)" in path.get("style", "")


def test_matplotlib_is_imported_only_to_draw() -> None:
    program = "import sys, trainer.train, trainer.__main__; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)


@pytest.mark.parametrize("measured", [True, False])
def test_report_of_many_classes_with_and_without_validation(dataset: Path, tmp_path: Path, measured: bool) -> None:
    text = (dataset / "classes.toml").read_text()
    more = [f'[[classes]]\nname = "class {index} <&>"\ncolor = [{index}, 2, 3]\n' for index in range(2, 150)]
    (dataset / "classes.toml").write_text(text + "".join(more))
    data, recipe = open_dataset(dataset), make_recipe(dataset, "supervised", TINY_VIT)
    val = data.split("val") if measured else ()
    run = RunData(data, data.split("labelled"), val, data, (), "0" * 64)
    model = build_segmenter(recipe.model, 150).eval()
    found = evaluate(model, data, val) if measured else None
    path = write_report(tmp_path, recipe=recipe, data=run, model=model, scores=found)
    page = path.read_text(encoding="utf-8")
    assert "class 149 &lt;&amp;&gt;" in page
    assert "<&>" not in page
    assert ('class="heatmap"' in page) == measured
    assert ("The run has no validation images" in page) == (not measured)
