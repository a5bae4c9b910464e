"""The run report: one HTML file that a person can open, read, print and send; it fetches nothing."""

# K classes

import base64
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from trainer.atomic_write import atomic_write
from trainer.config import Recipe
from trainer.data.frequency import class_frequency
from trainer.evaluation.audit import Audit
from trainer.evaluation.metrics import Scores
from trainer.models.segmenter import Segmenter
from trainer.optimizer import learning_rate
from trainer.report.charts import Line, line_chart, reliability_diagram
from trainer.report.classes import class_rows, confusions, normalised
from trainer.report.gallery import gallery
from trainer.report.history import History, Points, history
from trainer.report.words import advice, trend
from trainer.run_data import RunData
from trainer.schedules import lr_factor

REPORT = "report.html"
METHODS = {
    "supervised": "labels only",
    "fixmatch": "FixMatch",
    "unimatch_v1": "UniMatch V1",
    "unimatch_v2": "UniMatch V2",
}
LISTED = 12
"""Confusions that are listed."""
CELLS = 24
"""Classes up to which the confusion matrix is a table of numbers; of more it is a picture."""
HEAT, PAPER = (30, 64, 175), (241, 245, 249)


def write_report(
    path: Path,
    *,
    recipe: Recipe,
    data: RunData,
    model: Segmenter,
    scores: Scores | None,
    events: Iterable[Mapping[str, Any]],
    audit: Audit | None,
) -> Path:
    """Write a run's report; the file appears whole or not at all.

    Args:
        path: where to.
        recipe: the run's.
        data: its images.
        model: the weights that are kept, on any device.
        scores: theirs on `val`; None when the run judges on nothing.
        events: what the run said, in any order of steps.
        audit: of the pseudo-labels; None for a method that makes none.

    Returns:
        `path`.

    Raises:
        ImageError: a labelled image or a mask cannot be read.
    """
    said = history(dict(event) for event in events)
    rows = class_rows(data.dataset.taxonomy, class_frequency(data.dataset, data.labelled), scores, audit)
    taken = confusions(scores, data.dataset.taxonomy.names) if scores else ()
    looked_at, pictures = gallery(model, data.dataset, data.val, recipe.inference) if data.val else (0, ())
    page = _template().render(
        title=f"{METHODS[recipe.method]} on {Path(recipe.data.root).name}",
        method=METHODS[recipe.method],
        recipe=recipe,
        data=data,
        scores=scores,
        audit=audit,
        said=said,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trend=trend(said.miou()) if scores else "",
        advice=advice(rows, scores, taken, audit),
        charts=_charts(said, recipe),
        rows=rows,
        confusions=taken[:LISTED],
        matrix=normalised(scores).tolist() if scores and len(rows) <= CELLS else [],
        heat=_heat(scores) if scores and len(rows) > CELLS else "",
        reliability=reliability_diagram(scores.calibration) if scores and scores.calibration else "",
        looked_at=looked_at,
        pictures=pictures,
        recipe_toml=tomli_w.dumps(_without_places(recipe)),
    )
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _template() -> Any:
    loader = PackageLoader("trainer.report", package_path="")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda part, digits=1: "" if part is None else f"{100 * part:.{digits}f}%"
    environment.filters["figure"] = lambda value, digits=3: "-" if value is None else f"{value:.{digits}f}"
    return environment.get_template("page.html.jinja")


def _charts(said: History, recipe: Recipe) -> list[Any]:
    losses = {"loss": "loss", "loss_labelled": "on labelled images", "loss_unlabelled": "on unlabelled images"}
    semi = recipe.method != "supervised"
    lines = [Line(name, said.series(key), smooth=True) for key, name in losses.items() if semi or key == "loss"]
    rates: Points = [(step, learning_rate(recipe.train) * _factor(recipe, step)) for step in said.progress]
    head: Points = [(step, rate * recipe.train.lr_head_factor) for step, rate in rates]
    charts = [
        line_chart(
            "mIoU on the validation images",
            [Line("kept weights (teacher)" if semi else "mIoU", said.miou()), Line("student", said.miou("student"))],
        ),
        line_chart("Loss", lines),
        line_chart(
            "Part of the unlabelled pixels that are confident",
            [Line("confident", said.series("confident"), smooth=True)],
        ),
        line_chart("Learning rate", [Line("head", head), Line("encoder", rates)]),
    ]
    return [chart for chart in charts if chart]


def _factor(recipe: Recipe, step: int) -> float:
    """Of the learning rate; an event tells of the step that was just done."""
    train = recipe.train
    return lr_factor(step - 1, train.steps, power=train.lr_power, warmup_steps=train.warmup_steps)


def _heat(scores: Scores) -> str:
    """The confusion matrix as a picture, a data URL: rows the truth, darker = more of the row."""
    parts_KK1 = np.sqrt(normalised(scores))[..., None]  # small parts are what one looks for
    pixels_KK3 = np.array(PAPER) * (1 - parts_KK1) + np.array(HEAT) * parts_KK1
    side = max(1, 720 // len(pixels_KK3)) * len(pixels_KK3)
    buffer = io.BytesIO()
    Image.fromarray(pixels_KK3.astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST).save(buffer, "png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _without_places(recipe: Recipe) -> dict[str, Any]:
    """The recipe as it may leave the machine: folders and files by their last name alone."""
    table = recipe.as_dict()
    places = [(table, "init"), (table["model"], "weights")]
    places += [(table["data"], name) for name in ("root", "splits", "unlabelled_root")]
    for parent, name in places:
        parent[name] = Path(parent[name]).name
    return table
