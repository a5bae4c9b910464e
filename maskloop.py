"""The command line `maskloop VERB`: one name for the commands of all programs.

A verb is a command of one of the programs, which is imported when the verb is chosen: `maskloop --help` imports none.

Exit codes of every verb: 0 success; 1 error; 2 invalid command line or setting; 3 done in part, as the output says;
75 stopped with the state saved (`train`); 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

INTERRUPTED, USAGE = 130, 2

SERVICE, CLIENT, TRAINER, EXPORTER = (
    "service.__main__",
    "service.client.commands.command_line",
    "trainer.command_line",
    "exporter.__main__",
)
VERBS = {
    SERVICE: {
        "up": "run everything on this machine: API, worker and broker",
        "serve": "run the HTTP API alone",
        "worker": "run a training worker alone",
        "keys": "create, list, revoke and show API keys",
        "settings": "list all settings with their current values",
        "repeat": "repeat a training run of a data folder",
    },
    CLIENT: {
        "segment": "write the masks of images, folders and patterns",
        "push": "send a data set or a folder of images to the pool",
        "pull": "fetch images and labels of the pool as a data set",
        "classes": "show and change the class list",
        "labels": "count the labels, and list what to label next",
        "runs": "start, watch, cancel and repeat retraining runs",
        "models": "list, import, activate and delete models",
    },
    TRAINER: {
        "import": "convert annotations of labelling tools to a data set",
        "export-labels": "convert a data set to the form of a labelling tool",
        "check": "check every image and mask of a data set",
        "train": "train a model",
        "evaluate": "score checkpoints on a labelled split",
        "predict": "write the masks of a checkpoint, without a service",
        "report": "write a run's report.html again",
        "prepare-coco": "create the masks of COCO from its annotations",
        "import-official": "convert a published checkpoint of UniMatch V2",
    },
    EXPORTER: {
        "export": "export a checkpoint to a bundle that the service serves",
        "verify": "check that a bundle is valid",
        "inspect": "print the model card of a bundle",
        "triton": "write a bundle as a Triton repository",
        "check-tensorrt": "check whether TensorRT accepts a bundle",
    },
}
HEADINGS = {
    SERVICE: "run a service",
    CLIENT: "use a service, here or elsewhere",
    TRAINER: "data sets and training (which needs the extra `trainer`)",
    EXPORTER: "bundles (which need the extra `exporter`)",
}
PROGRAM_OF = {verb: program for program, verbs in VERBS.items() for verb in verbs}
SHELLS = ("bash", "zsh", "fish")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _keep_to_own_packages()
    try:
        try:
            if "_ARGCOMPLETE" in os.environ:
                return _complete(os.environ.get("COMP_LINE", ""))
            return _run(words)
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has enough, as `head` does. Python would complain again when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _keep_to_own_packages() -> None:
    """Let `python -m service` and others, which this program starts, import the packages that this process imports.

    Python would search the working folder first, where `trainer/` or `service.py` may be somebody's own.
    """
    if not {"", str(Path.cwd())} & set(sys.path):
        os.environ.setdefault("PYTHONSAFEPATH", "1")


def _run(words: list[str]) -> int:
    verb = words[0] if words else ""
    if verb in PROGRAM_OF:
        code: int = importlib.import_module(PROGRAM_OF[verb]).main(words, prog="maskloop")
        return code
    if verb == "--version":
        from importlib.metadata import version  # noqa: PLC0415 - slow, and rarely needed

        sys.stdout.write(f"maskloop {version('maskloop')}\n")
        return 0
    options = _parser().parse_args(words)
    if options.verb == "completion":
        return _print_completion(options.words)
    return USAGE


def _parser() -> argparse.ArgumentParser:
    groups = [f"{HEADINGS[program]}:\n{_listed(verbs)}" for program, verbs in VERBS.items()]
    more = {"completion": f"print the shell completion: {', '.join(SHELLS)}"}
    parser = argparse.ArgumentParser(
        prog="maskloop",
        usage="maskloop [-h] [--version] VERB ...",
        description="Semantic segmentation over HTTP, with a model that is retrained on the images that it receives.",
        epilog="\n\n".join([*groups, f"shell:\n{_listed(more)}", "`maskloop VERB --help` explains a verb."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("verb", choices=[*PROGRAM_OF, "completion"], metavar="VERB", help=argparse.SUPPRESS)
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _listed(verbs: dict[str, str]) -> str:
    return "\n".join(f"  {verb:<16} {text}" for verb, text in verbs.items())


def _print_completion(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="maskloop completion",
        description='Print the completion of a shell. bash: eval "$(maskloop completion bash)" in ~/.bashrc; zsh: the '
        "same with zsh in ~/.zshrc, after compinit; fish: maskloop completion fish | source in config.fish.",
    )
    parser.add_argument("shell", choices=SHELLS)
    shell = parser.parse_args(words).shell
    from argcomplete.shell_integration import shellcode  # noqa: PLC0415 - only needed here

    sys.stdout.write(f"{shellcode(['maskloop'], shell=shell)}\n")
    return 0


def _complete(line: str) -> int:
    """Print the possible next words of a command line, for argcomplete's shell functions."""
    import argcomplete  # noqa: PLC0415 - only needed here

    words = line.split()
    # The verb itself is complete once another word follows.
    verb = words[1] if len(words) > 2 or (len(words) == 2 and line[-1].isspace()) else ""
    program = PROGRAM_OF.get(verb)
    parser = importlib.import_module(program).parser(verb, "maskloop") if program else _parser()
    argcomplete.autocomplete(parser)
    return 0


if __name__ == "__main__":
    sys.exit(main())
