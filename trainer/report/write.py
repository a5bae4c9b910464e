"""Write the report of a run: one HTML file without external resources."""

from pathlib import Path
from typing import Any

import tomli_w
from jinja2 import Environment, PackageLoader, StrictUndefined

from trainer.atomic_write import atomic_write
from trainer.config import Recipe
from trainer.data.scan import class_frequency
from trainer.evaluation.audit import audit_pseudo_labels
from trainer.evaluation.metrics import Scores
from trainer.models.segmenter import Segmenter
from trainer.optimizer import learning_rate, lr_factor
from trainer.report.advice import advice, trend
from trainer.report.charts import line_chart, reliability_diagram
from trainer.report.class_table import class_rows, confusions, normalised
from trainer.report.gallery import gallery, heatmap
from trainer.report.history import History, Points, build_history, read_events
from trainer.report.next_steps import next_steps
from trainer.run_data import RunData

METHODS = {
    "supervised": "labels only",
    "fixmatch": "FixMatch",
    "unimatch_v1": "UniMatch V1",
    "unimatch_v2": "UniMatch V2",
}
MAX_CONFUSIONS = 12
MAX_TABLE_CLASSES = 24
"""Up to this many classes the confusion matrix is a table, above it an image."""


def write_report(run: Path, *, recipe: Recipe, data: RunData, model: Segmenter, scores: Scores | None) -> Path:
    """Write RUN/report.html atomically, and return its path. Raises ImageError.

    `model` has the kept weights, on any device; `scores` is None for a run without validation images.
    """
    history = build_history(read_events(run / "events.jsonl"))
    audit = audit_pseudo_labels(model, recipe, data) if data.unlabelled else None
    rows = class_rows(data.dataset.taxonomy, class_frequency(data.dataset, data.labelled), scores, audit)
    pairs = confusions(scores, data.dataset.taxonomy.names) if scores else ()
    ranked, pictures = gallery(model, data.dataset, data.val, recipe.inference) if data.val else (0, ())
    page = _template().render(
        title=f"{METHODS[recipe.method]} on {Path(recipe.data.root).name}",
        method=METHODS[recipe.method],
        recipe=recipe,
        notes=model.encoder.notes,
        data=data,
        scores=scores,
        audit=audit,
        history=history,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trend=trend(history.miou()) if scores else "",
        advice=advice(rows, scores, pairs, audit),
        next_steps=next_steps(recipe, rows, scores, history),
        charts=_charts(history, recipe),
        rows=rows,
        confusions=pairs[:MAX_CONFUSIONS],
        matrix=normalised(scores).tolist() if scores and len(rows) <= MAX_TABLE_CLASSES else [],
        heatmap=heatmap(normalised(scores)) if scores and len(rows) > MAX_TABLE_CLASSES else "",
        reliability=reliability_diagram(scores.calibration) if scores and scores.calibration else "",
        ranked=ranked,
        pictures=pictures,
        recipe_toml=tomli_w.dumps(recipe.as_portable_dict()),
    )
    path = run / "report.html"
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _template() -> Any:
    loader = PackageLoader("trainer.report", package_path="")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda share, digits=1: "" if share is None else f"{100 * share:.{digits}f}%"
    environment.filters["figure"] = lambda value, digits=3: "-" if value is None else f"{value:.{digits}f}"
    return environment.get_template("page.html.jinja")


def _charts(history: History, recipe: Recipe) -> list[Any]:
    semi_supervised = recipe.method != "supervised"
    losses = {"loss": history.series("loss")}
    if semi_supervised:
        losses["on labelled images"] = history.series("loss_labelled")
        losses["on unlabelled images"] = history.series("loss_unlabelled")
    kept = "kept weights (teacher)" if semi_supervised else "mIoU"
    train = recipe.train
    # An event reports the step that was just completed.
    factors = {
        step: lr_factor(step - 1, train.steps, power=train.lr_power, warmup_steps=train.warmup_steps)
        for step in history.progress
    }
    encoder: Points = [(step, learning_rate(train) * factor) for step, factor in factors.items()]
    head: Points = [(step, rate * train.lr_head_factor) for step, rate in encoder]
    confident = {"confident": history.series("confident")}
    charts = [
        line_chart("mIoU on the validation images", {kept: history.miou(), "student": history.miou("student")}),
        line_chart("Loss", losses, smooth=True),
        line_chart("Share of confident pixels in the unlabelled images", confident, smooth=True),
        line_chart("Share of right pixels among the confident ones of val", {"reliability": history.reliability()}),
        line_chart("Learning rate", {"head": head, "encoder": encoder}),
    ]
    return [chart for chart in charts if chart]
