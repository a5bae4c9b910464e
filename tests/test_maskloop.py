"""The command line `maskloop`: its verbs, and that it stays fast and light."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import maskloop


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "maskloop", *words]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, timeout=120, check=False
    )


def test_help_lists_every_verb_and_imports_no_program() -> None:
    program = (
        "import sys, maskloop\n"
        "try: maskloop.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    listed, imported = done.stdout.rsplit("\n", 2)[0], json.loads(done.stdout.splitlines()[-1].replace("'", '"'))
    assert all(f"\n  {verb} " in listed for verb in maskloop.PROGRAM_OF)
    assert not {"service", "trainer", "exporter", "pydantic", "numpy", "httpx", "rich"} & set(imported)


@pytest.mark.parametrize("verb", maskloop.PROGRAM_OF)
def test_help_of_a_verb_names_it(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        maskloop.main([verb, "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert shown.startswith(f"usage: maskloop {verb} ")
    assert "python -m" not in shown


@pytest.mark.parametrize("words", [["nonsense"], [], ["up", "--nonsense"], ["runs"], ["completion", "tcsh"]])
def test_wrong_usage_is_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        maskloop.main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: maskloop")


def test_reader_that_closes_the_pipe_is_no_traceback() -> None:
    command = [sys.executable, "-m", "maskloop", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


needs_argcomplete = pytest.mark.skipif(
    importlib.util.find_spec("argcomplete") is None, reason="argcomplete is not installed"
)


@needs_argcomplete
@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("maskloop se", {"segment", "serve", "settings"}),
        ("maskloop runs c", {"cancel"}),
        ("maskloop pull --wh", {"--which"}),
        ("maskloop pull --which un", {"unlabelled"}),
    ],
)
def test_bash_completes_verbs_and_options(line: str, expected: set[str], tmp_path: Path) -> None:
    program = tmp_path / "maskloop"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m maskloop "$@"\n')
    program.chmod(0o755)
    # What bash does when TAB is pressed.
    script = f"""
eval "$({sys.executable} -m maskloop completion bash)"
COMP_LINE='{line}' COMP_POINT={len(line)} COMP_TYPE=63
read -ra COMP_WORDS <<< "$COMP_LINE"
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_python_argcomplete maskloop "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD - 1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert set(done.stdout.split()) == expected, done.stderr


@needs_argcomplete
@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_their_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert maskloop.main(["completion", shell]) == 0
    shown = capsys.readouterr().out
    assert ("#compdef" in shown) == (shell == "zsh")
    assert ("function __fish_maskloop_complete" in shown) == (shell == "fish")


def test_every_command_of_the_programs_is_a_verb() -> None:
    for program in maskloop.VERBS:
        (commands,) = importlib.import_module(program).parser("", "maskloop")._subparsers._group_actions
        # `check-data` is the former name of `check`.
        assert set(commands.choices) - {"check-data"} == set(maskloop.VERBS[program]), program
