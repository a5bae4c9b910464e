"""`/v1/drift`: whether incoming images differ from the training data."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from service.analyses.drift_report import read_drift
from service.analyses.drift_watch import DriftWatch
from service.api.auth import needs
from service.api.dependencies import StateOf
from service.api.docs.problem_docs import problem_docs
from service.errors import NoModel
from service.storage.analysis_tables import AnalysedDay

router = APIRouter(prefix="/v1/drift", tags=["drift"], dependencies=[needs("train")])


class TestOut(BaseModel):
    """A comparison of a window of new images with the training data."""

    model_config = ConfigDict(from_attributes=True)

    at: datetime
    images: int = Field(description="new images in the window")
    reference_images: int = Field(description="images of the training data")
    mmd2: float = Field(description="squared maximum mean discrepancy of their embeddings")
    p_value: float = Field(description="probability of such a difference without drift")
    alarm: bool


class DayOut(BaseModel):
    """The images that arrived on a day (UTC); deleted ones stay counted."""

    day: date
    images: int
    confidence: float = Field(description="mean, 0..1")
    uncertainty: float = Field(description="mean share of uncertain pixels, 0..1")
    areas: dict[str, float] = Field(description="mean share of the image by class, 0..1")


class DriftOut(BaseModel):
    """Drift, as the active model sees it."""

    model: str
    window: int = Field(description="images of a test")
    images_between_false_alarms: int
    level: float = Field(description="p-value up to which a test alarms")
    duplicate_threshold: float | None = Field(
        description="cosine from which images are near-duplicates; null: a perceptual hash decides"
    )
    alarm: bool | None = Field(description="of the last test; null: none yet")
    tests: list[TestOut] = Field(description="newest first")
    days: list[DayOut] = Field(description="newest first")


@router.get("", responses=problem_docs(NoModel))
def get_drift(
    state: StateOf,
    days: Annotated[int, Query(ge=1, le=1000)] = 30,
    tests: Annotated[int, Query(ge=1, le=1000)] = 30,
) -> DriftOut:
    """Get the drift tests of the active model, and its confidence and class areas by day."""
    loaded = state.active_model.require()
    manifest, names = loaded.bundle.manifest, loaded.class_table.names
    report = read_drift(state.database, manifest.version, tests=tests, days=days)
    return DriftOut(
        model=manifest.version,
        window=state.settings.drift_window,
        images_between_false_alarms=state.settings.drift_images_between_false_alarms,
        level=DriftWatch(state.settings, state.database, state.vectors).level,
        duplicate_threshold=report.duplicate_threshold,
        alarm=report.tests[0].alarm if report.tests else None,
        tests=[TestOut.model_validate(test) for test in report.tests],
        days=[_day(row, names) for row in report.days],
    )


def _day(row: AnalysedDay, names: Sequence[str]) -> DayOut:
    return DayOut(
        day=row.day,
        images=row.images,
        confidence=row.confidence / max(row.images, 1),
        uncertainty=row.uncertainty / max(row.images, 1),
        areas={name: area / max(row.images, 1) for name, area in _by_name(names, row.areas).items()},
    )


def _by_name(names: Sequence[str], areas: Sequence[float]) -> dict[str, float]:
    """Sum the areas by name: merged classes of a model have one name."""
    summed = dict.fromkeys(names[: len(areas)], 0.0)
    for name, area in zip(names, areas, strict=False):
        summed[name] += area
    return summed
