"""Sums of the analyses by day (UTC) of arrival: a day's mean confidence and class areas without reading its images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from itertools import zip_longest

from sqlalchemy.orm import Session

from service.segmentation.analysis import Analysis
from service.storage.analysis_tables import AnalysedDay
from service.storage.tables import Image


def count_days(session: Session, version: str, analysed: Sequence[tuple[Image, Analysis]]) -> None:
    """Add analyses to the sums of their days; the caller holds the lock of the model's row."""
    by_day: dict[date, list[Analysis]] = defaultdict(list)
    for image, analysis in analysed:
        by_day[image.created_at.date()].append(analysis)
    for day, analyses in by_day.items():
        row = session.get(AnalysedDay, (version, day))
        if row is None:
            row = AnalysedDay(version=version, day=day, images=0, confidence=0.0, uncertainty=0.0, areas=[])
            session.add(row)
        row.images += len(analyses)
        row.confidence += sum(each.mean_confidence for each in analyses)
        row.uncertainty += sum(each.uncertainty for each in analyses)
        columns = zip_longest(row.areas, *(each.areas for each in analyses), fillvalue=0.0)
        row.areas = [sum(column) for column in columns]
