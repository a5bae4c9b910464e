"""Prometheus metrics of the analyses by the active model: confidence, class areas, drift."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.analyses.drift_report import newest_days, newest_tests
from service.storage.analysis_tables import AnalysedDay, AnalysedModel, DriftTest
from service.storage.tables import Activation, Image, Model


@dataclass(frozen=True, slots=True)
class Analyses:
    """New images that are not analysed yet, the newest day, and the last drift test; None: there is none."""

    waiting: int
    day: AnalysedDay | None
    test: DriftTest | None


def read_analyses(session: Session) -> Analyses:
    """Read the newest values."""
    activated = select(AnalysedModel).join(Activation, Activation.version == AnalysedModel.version)
    activated = activated.join(Model, Model.version == Activation.version).where(Model.state != "failed")
    model = session.scalars(activated.order_by(Activation.id.desc()).limit(1)).first()
    newest = model.newest if model else 0
    waiting = session.scalars(select(func.count()).select_from(Image).where(Image.sequence > newest)).one()
    if model is None:
        return Analyses(waiting, None, None)
    days, tests = newest_days(session, model.version, 1), newest_tests(session, model.version, 1)
    return Analyses(waiting, days[0] if days else None, tests[0] if tests else None)


def analysis_gauges(analyses: Analyses) -> Iterator[GaugeMetricFamily]:
    """Yield the gauges that have a value."""
    yield GaugeMetricFamily(
        "maskloop_analysis_waiting_images", "New images that are not analysed yet.", value=analyses.waiting
    )
    day, test = analyses.day, analyses.test
    if day is not None and day.images:
        yield GaugeMetricFamily(
            "maskloop_day_confidence", "Mean confidence of the newest day's images.", value=day.confidence / day.images
        )
        areas = GaugeMetricFamily("maskloop_day_class_area", "Mean share of a class on that day.", labels=["class_id"])
        for class_id, area in enumerate(day.areas):
            areas.add_metric([str(class_id)], area / day.images)
        yield areas
    if test is not None:
        yield GaugeMetricFamily("maskloop_drift_alarm", "Whether the last drift test alarmed.", value=test.alarm)
        yield GaugeMetricFamily("maskloop_drift_p_value", "P-value of the last drift test.", value=test.p_value)
        yield GaugeMetricFamily("maskloop_drift_mmd2", "Squared MMD of the last drift test.", value=test.mmd2)
