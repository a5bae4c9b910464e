"""import-linter enforces the import rules between the programs: breaking one makes `make lint` fail."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(LINT_IMPORTS), "--no-cache"]
    environment = {"PYTHONPATH": str(folder), "PATH": str(LINT_IMPORTS.parent), "COLUMNS": "200"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the source that a test may change."""
    for package in ("trainer", "exporter", "service", "demo"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "starter"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_no_import_rule_is_broken(checkout: Path) -> None:
    found = lint(checkout)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("service/errors.py", "import torch", "no torch or onnx"),
        ("service/releases/gate/scoring.py", "import trainer.evaluation.metrics", "imports neither of the others"),
        ("trainer/losses.py", "import service.errors", "The trainer stands alone"),
        ("exporter/export.py", "import trainer.train", "The exporter knows of the trainer only"),
        ("service/storage/blob_store.py", "import service.api.app", "nothing reaches up"),
        ("service/api/v1/runs.py", "import service.worker.celery_app", "nothing reaches up"),
        ("service/models/model_store.py", "import fastapi", "FastAPI lives in service/api"),
        ("demo/client.py", "import service.settings", "The demo imports none"),
        ("trainer/losses.py", "import demo.textures", "None of the three programs imports the demo"),
        ("service/runs/policy/retrain_policy.py", "import celery", "Celery lives in service/worker"),
    ],
)
def test_forbidden_import_is_reported(checkout: Path, file: str, line: str, contract: str) -> None:
    path = checkout / file
    path.write_text(
        path.read_text().replace("\nimport ", f"\n{line}\nimport ", 1).replace("\nfrom ", f"\n{line}\nfrom ", 1)
    )
    assert line in path.read_text()
    found = lint(checkout)
    assert found.returncode != 0
    broken = [text for text in found.stdout.splitlines() if " BROKEN" in text]
    assert any(contract in text for text in broken), found.stdout
