"""Command line: maskloop segment | push | pull | labels | classes | runs | models."""

from __future__ import annotations

import argparse
import sys

from service.client.commands.class_commands import add_classes
from service.client.commands.exit_codes import FAILED, INTERRUPTED, USAGE
from service.client.commands.label_commands import add_labels
from service.client.commands.model_commands import add_models
from service.client.commands.pull_command import add_pull
from service.client.commands.push_command import add_push
from service.client.commands.run_commands import add_runs
from service.client.commands.segment_command import add_segment
from service.client.wrong_usage import WrongUsage


def main(arguments: list[str] | None = None, prog: str = "maskloop") -> int:
    """Run one command and return its exit code, see `exit_codes`."""
    options = parser("", prog).parse_args(arguments)
    # Imported late, for fast completion.
    from service.client.call_errors import CallError  # noqa: PLC0415

    try:
        return int(options.command(options))
    except KeyboardInterrupt:
        return _fail("stopped", code=INTERRUPTED)
    except WrongUsage as error:
        return _fail(str(error), code=USAGE)
    except BrokenPipeError:
        raise
    except (CallError, OSError) as error:
        return _fail(str(error), code=FAILED)


def parser(_chosen: str, prog: str) -> argparse.ArgumentParser:
    """Return the parser of all commands, whichever is chosen: it is quick to build."""
    whole = argparse.ArgumentParser(prog=prog, description="Use a service over HTTP.")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    for add in (add_segment, add_push, add_pull, add_labels, add_classes, add_runs, add_models):
        add(commands)
    return whole


def _fail(message: str, *, code: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    return code
