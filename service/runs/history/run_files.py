"""Files of a run that clients may read: log, report and recipe. Folders of this machine are removed from texts."""

from __future__ import annotations

from pathlib import Path

from service.errors import RunFileMissing, names_only

LOG, RECIPE = "log.txt", "recipe.toml"
MAX_LOG_BYTES = 1 << 20


def training_folder(run_folder: Path) -> Path:
    """Return the folder with the trainer's output: RUN/train, or the one of the last unfinished attempt."""
    finished = run_folder / "train"
    attempts = [path for path in run_folder.glob("attempt-*/train") if path.parent.name[8:].isdecimal()]
    if finished.exists() or not attempts:
        return finished
    return max(attempts, key=lambda path: int(path.parent.name[8:]))


def report_file(run_folder: Path) -> Path:
    """Return the trainer's report, an HTML page. Raises RunFileMissing."""
    path = training_folder(run_folder) / "report.html"
    if not path.is_file():
        raise RunFileMissing(
            "The run has no report: the trainer writes it when it finishes, unless the recipe has `report = false`."
        )
    return path


def read_recipe(run_folder: Path) -> str:
    """Read the trainer's recipe, in TOML. Raises RunFileMissing."""
    path = run_folder / RECIPE
    if not path.is_file():
        raise RunFileMissing("The run has no recipe: its worker writes it before training starts.")
    return names_only(path.read_text(encoding="utf-8"))


def read_log(run_folder: Path, lines: int) -> str:
    """Read the last lines of the log of trainer and exporter, at most `MAX_LOG_BYTES`. Raises RunFileMissing."""
    path = run_folder / LOG
    if not path.is_file():
        raise RunFileMissing("The run has no log: it begins when training starts.")
    with path.open("rb") as file:
        skipped = max(path.stat().st_size - MAX_LOG_BYTES, 0)
        file.seek(skipped)
        read = file.read(MAX_LOG_BYTES).decode(errors="replace").splitlines(keepends=True)
    # The first may be incomplete.
    return names_only("".join(read[1 if skipped else 0 :][-lines:]))
