"""Database tables of what models say about the images of the pool. A change here needs a migration."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import JSON, BigInteger, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from service.storage.tables import Base, utc_now


class AnalysedModel(Base):
    """A model version by which images are analysed, and which images it has analysed: those from one to another."""

    __tablename__ = "analysed_models"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    version: Mapped[str] = mapped_column(ForeignKey("models.version"), unique=True, index=True)
    dimensions: Mapped[int | None]
    """Length of its embeddings; NULL: it has none."""
    oldest: Mapped[int] = mapped_column(BigInteger)
    """`Image.sequence` of the oldest analysed image; above `newest` if there is none."""
    newest: Mapped[int] = mapped_column(BigInteger)
    """`Image.sequence` of the newest analysed image; images up to it were compared with earlier ones."""
    duplicate_threshold: Mapped[float | None]
    """Least cosine of near-duplicates; NULL: not measured yet, or the model cannot tell them."""


class ImageAnalysis(Base):
    """What a model version says about an image."""

    __tablename__ = "analyses"

    version: Mapped[str] = mapped_column(ForeignKey("models.version"), primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, index=True)
    """`Image.sequence`, and the row of the embedding in its file."""
    confidence: Mapped[float]
    """Mean over all pixels, 0..1."""
    uncertainty: Mapped[float]
    """Of `curation.uncertainty`, 0..1."""
    areas: Mapped[list[float]] = mapped_column(JSON)
    """Share of the image by class id, 0..1; without the classes after the last one that occurs."""


class AnalysedDay(Base):
    """Sums over the images of one day (UTC) that a model version has analysed. Deleted images stay counted."""

    __tablename__ = "analysed_days"

    version: Mapped[str] = mapped_column(ForeignKey("models.version"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    images: Mapped[int]
    confidence: Mapped[float]
    uncertainty: Mapped[float]
    areas: Mapped[list[float]] = mapped_column(JSON)


class DriftTest(Base):
    """A comparison of the newest images with the training data of a model version."""

    __tablename__ = "drift_tests"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(default=utc_now)
    version: Mapped[str] = mapped_column(ForeignKey("models.version"), index=True)
    newest: Mapped[int] = mapped_column(BigInteger)
    """`Image.sequence` of the newest image in the test."""
    images: Mapped[int]
    reference_images: Mapped[int]
    mmd2: Mapped[float]
    p_value: Mapped[float]
    alarm: Mapped[bool]
