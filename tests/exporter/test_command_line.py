"""The command line as a subprocess."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from exporter import events
from tests.exporter.conftest import GOLDEN


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "exporter", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)


def lines(ran: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Parse stdout, of which every line must be a JSON object."""
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.mark.slow
def test_export_then_verify(vit_checkpoint: Path, tmp_path: Path) -> None:
    out, about = tmp_path / "bundle", tmp_path / "about.md"
    about.write_text("For tests only.\n", encoding="utf-8-sig")
    ran = run("export", vit_checkpoint, "--out", out, "--name", "tiny", "--weights", "fp16", "--about", about)
    assert ran.returncode == 0, ran.stderr
    printed = lines(ran)
    assert [event["event"] for event in printed] == ["start", *["progress"] * 5, "done"]
    assert [(event["step"], event["steps"]) for event in printed[1:-1]] == [(step, 5) for step in range(5)]
    assert printed[-1]["bundle"] == str(out)
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["version"], manifest["name"]) == (printed[-1]["version"], "tiny")
    card = (out / "MODEL_CARD.md").read_text()
    assert "For tests only." in card
    assert "\ufeff" not in card
    assert lines(run("verify", out))[-1]["version"] == manifest["version"]


def test_long_stage_reports_that_it_is_at_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work = events.SignOfLife()
    at_work()
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(events, "EVERY_S", 0.0)
    at_work()
    assert json.loads(capsys.readouterr().out) == {"event": "measuring", "images_done": 2}


def test_verify_prints_json_and_a_table() -> None:
    ran = run("verify", GOLDEN)
    assert ran.returncode == 0, ran.stderr
    (event,) = lines(ran)
    assert (event["event"], event["images"]) == ("done", 2)
    assert "valid, version" in ran.stderr
    assert ran.stderr.splitlines()[-1] == "| `model.onnx` | fp32 | 0.2 | 100.000 % | 99.900 % |"


def test_verify_of_an_empty_folder_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    ran = run("verify", tmp_path)
    assert ran.returncode == 1
    (event,) = lines(ran)
    assert event["event"] == "error"
    assert "maskloop export" in event["message"]
    assert "Traceback" not in ran.stderr


def test_export_of_a_missing_file_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    ran = run("export", tmp_path / "model.safetensors", "--out", tmp_path / "bundle")
    assert ran.returncode == 1
    (event,) = lines(ran)
    assert "give the model.safetensors of a run" in event["message"]
    assert list(tmp_path.iterdir()) == []


def test_missing_package_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    program = """
import sys
class Missing:
    def find_spec(name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Missing)
from exporter.__main__ import main
sys.exit(main(["export", sys.argv[1], "--out", sys.argv[2]]))
"""
    arguments = [sys.executable, "-c", program, str(tmp_path / "model.safetensors"), str(tmp_path / "bundle")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    remedy = "run `pip install 'maskloop[trainer,exporter]'`, in a checkout `make trainer`"
    assert done.stderr == f"error: torch is not installed: {remedy}\n"


def test_inspect_prints_the_card_or_the_manifest() -> None:
    assert run("inspect", GOLDEN).stdout.startswith("# golden")
    assert json.loads(run("inspect", GOLDEN, "--json").stdout)["format_version"] == 1


def test_inspect_prints_the_palette_on_request_only() -> None:
    printed = run("inspect", GOLDEN, "--palette").stdout.splitlines()[-5:]
    assert printed[1] == "\x1b[48;2;90;90;90m      \x1b[0m   1  road"
    assert "\x1b[48" not in run("inspect", GOLDEN).stdout, "stdout is a pipe"


@pytest.mark.parametrize("arguments", [(), ("export",), ("verify",), ("inspect",), ("check-tensorrt",), ("triton",)])
def test_help_works(arguments: tuple[str, ...]) -> None:
    ran = run(*arguments, "--help")
    assert ran.returncode == 0
    assert "usage: python -m exporter" in ran.stdout
