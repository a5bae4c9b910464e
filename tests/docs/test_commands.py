"""Every command of README.md and docs/*.md is understood, and run unless its block says why not."""

import argparse
import importlib
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import PAGES, ROOT, Block, blocks, indented_lines
from tests.docs.conftest import Place, Programs

REASONS = {"docker", "a GPU", "hours", "network", "does not end", "tensorrt", "data sets"}
"""What the test machine lacks: Docker, a GPU, time, the internet, NVIDIA's parser, COCO. Another reason is the path of
a test that runs the same and takes too long to run twice."""

ALL = [block for page in PAGES for block in blocks(page)]
SHELL = [block for block in ALL if block.language == "sh"]
OWN = [block for block in SHELL if block.own_arguments()]
COMMAND = re.compile(r"([A-Z_]+=\S* |KEY=|(curl|docker|make|maskloop|python|torchrun|uv|pip) )")
OWN_ONLY = re.compile(r"python -m (trainer|exporter) [^$|<>]+")
NEEDED = {
    "runs/own": "python -m trainer train trainer/recipes/own/cpu.toml --set data.root=DATASET --out runs/own",
    "my-bundle": "python -m exporter export runs/own/model.safetensors --out my-bundle",
}
"""What a block takes for granted, and the command of another block that makes it."""

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


class Understood(BaseException):
    """The command line has been parsed."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_stand_in_fenced_blocks(page: Path) -> None:
    assert not [line for line in indented_lines(page) if COMMAND.match(line)]
    assert {block.language for block in blocks(page)} <= {"sh", "python"}


def test_reasons_are_known() -> None:
    for reason in {block.not_run for block in ALL if block.not_run} - REASONS:
        assert reason.startswith("tests/"), reason
        assert (ROOT / reason).is_file(), reason


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for page in (*PAGES, ROOT / "CONTRIBUTING.md"):
        text = page.read_text(encoding="utf-8")
        named = re.findall(r"`make ([a-z-]+)", text) + re.findall(r"^make ([a-z-]+)", text, flags=re.MULTILINE)
        assert set(named) <= targets, page.name


@pytest.mark.parametrize("block", OWN, ids=str)
def test_command_line_is_understood(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    parse_args = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, *given: Any, **options: Any) -> None:
        parse_args(parser, *given, **options)
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    for program, arguments in block.own_arguments():
        main = importlib.import_module(program if program == "maskloop" else f"{program}.__main__").main
        with pytest.raises(Understood):
            main(arguments)


@pytest.mark.parametrize(
    "block", [each for each in SHELL if not each.not_run and all(map(OWN_ONLY.fullmatch, each.commands()))], ids=str
)
def test_trainer_and_exporter_commands_run(
    block: Block, folder: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    needed = [command for name, command in NEEDED.items() if name in block.text]
    for command in (*needed, *block.commands()):
        programs.run(command)


@needs_curl
@pytest.mark.parametrize(
    "block",
    [each for each in SHELL if not each.not_run and not all(map(OWN_ONLY.fullmatch, each.commands()))],
    ids=str,
)
def test_shell_commands_run(block: Block, place: Place) -> None:
    place.reset()
    place.shell(block.text)


@pytest.mark.parametrize("block", [each for each in ALL if each.language == "python"], ids=str)
def test_python_blocks_run(block: Block, place: Place) -> None:
    place.reset()
    place.python(block.text)
