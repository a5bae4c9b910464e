"""What a run leaves behind, below `/v1/runs/ID`: history, log, recipe and report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from service.api.auth import needs
from service.api.dependencies import StateOf
from service.api.docs.problem_docs import problem_docs
from service.errors import RunFileMissing, RunFilesDeleted, RunNotFound
from service.runs.history.run_files import read_log, read_recipe, report_file
from service.runs.history.training_history import read_history

router = APIRouter(prefix="/v1/runs/{run_id}", tags=["runs"], dependencies=[needs("train")])

MAX_POINTS = 1000
MAX_LINES = 100_000
# The report has styles and pictures in it, and needs nothing else; it runs no script.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)
TOML = "application/toml"


def _text_docs(media_type: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {media_type: {"schema": {"type": "string"}}}}}


RECIPE_DOCS = problem_docs(RunNotFound, RunFileMissing)
FILE_DOCS = problem_docs(RunNotFound, RunFileMissing, RunFilesDeleted)


class HistoryOut(BaseModel):
    """Losses and evaluations of a run, by step."""

    model_config = ConfigDict(from_attributes=True)

    progress: list[dict[str, Any]] = Field(description="`step`, losses and learning rate")
    evaluations: list[dict[str, Any]] = Field(description="`step`, `miou` (0..1) and other scores on `val` images")


def run_folder(state: StateOf, run_id: str) -> Path:
    """Return the folder of an existing run. Raises RunNotFound."""
    return state.settings.data_dir / "runs" / state.runs.get(run_id).id


def run_files(state: StateOf, run_id: str) -> Path:
    """Return the folder of a run whose files were not deleted. Raises RunNotFound, RunFilesDeleted."""
    run = state.runs.get(run_id)
    if run.deleted_at is not None:
        raise RunFilesDeleted(
            f"Log, history, checkpoint and report of run {run_id} were deleted on {run.deleted_at:%Y-%m-%d} "
            f"({run.deletion_reason}); its record and its recipe are kept."
        )
    return run_folder(state, run_id)


Folder = Annotated[Path, Depends(run_folder)]
Files = Annotated[Path, Depends(run_files)]


@router.get("/history", responses=problem_docs(RunNotFound, RunFilesDeleted))
def get_history(
    folder: Files,
    points: Annotated[int, Query(ge=1, le=MAX_POINTS, description="maximum number of points of each list")] = 500,
) -> HistoryOut:
    """Get losses and evaluations as evenly spaced points. Empty before training starts."""
    return HistoryOut.model_validate(read_history(folder, points))


@router.get(
    "/log",
    response_class=PlainTextResponse,
    responses=_text_docs("text/plain") | FILE_DOCS,
)
def get_log(
    folder: Files, tail: Annotated[int, Query(ge=1, le=MAX_LINES, description="number of lines at the end")] = 1000
) -> PlainTextResponse:
    """Get the end of the log of trainer and exporter, at most 1 MiB."""
    return PlainTextResponse(read_log(folder, tail))


@router.get(
    "/recipe",
    response_class=PlainTextResponse,
    responses=_text_docs(TOML) | RECIPE_DOCS,
)
def get_recipe(folder: Folder) -> PlainTextResponse:
    """Get the trainer's recipe, in TOML."""
    return PlainTextResponse(read_recipe(folder), media_type=TOML)


@router.get(
    "/report",
    response_class=HTMLResponse,
    responses=_text_docs("text/html") | FILE_DOCS,
)
def get_report(folder: Files) -> FileResponse:
    """Get the trainer's report, an HTML page: curves, scores by class, validation images."""
    return FileResponse(report_file(folder), media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})
