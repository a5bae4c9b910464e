"""`maskloop runs start | wait | list | show | log | next | cancel | repeat`."""

from __future__ import annotations

import argparse
import itertools
from typing import TYPE_CHECKING, Any

from service.client.commands.connection import add_connected
from service.client.commands.exit_codes import DONE, FAILED
from service.client.commands.terminal import print_json, print_table, say

if TYPE_CHECKING:
    from service.client.answers import Run
    from service.client.sync_client import Client

WAIT = "wait until the run has ended, and show its progress; the exit code is 1 if it failed or was cancelled"
COLUMNS = ("ID", "STATUS", "REASON", "CREATED", "PHASE", "STEP", "MIOU BEFORE", "MIOU AFTER", "CANDIDATE")
LONG = ("report", "environment")
"""Fields that `show` prints as JSON only."""


def add_runs(commands: Any) -> None:
    """Add the subcommands."""
    runs = commands.add_parser(
        "runs", help="start, watch, cancel and repeat retraining runs", description="Retraining runs of a service."
    )
    subcommands = runs.add_subparsers(required=True, metavar="COMMAND")

    command = add_connected(subcommands, "start", "start a run with the images of the pool", _start)
    source = "active (the active model), encoder (its pretrained weights) or a version (default: the service's setting)"
    command.add_argument("--from", dest="start_from", metavar="MODEL", help=source)
    command.add_argument("--wait", action="store_true", help=WAIT)

    command = add_connected(
        subcommands, "repeat", "start a run with images, labels, recipe and seed of another one", _repeat
    )
    command.add_argument("run", metavar="RUN")
    command.add_argument("--without-deleted", action="store_true", help="leave out images that were deleted since")
    command.add_argument("--wait", action="store_true", help=WAIT)

    command = add_connected(subcommands, "list", "list the runs, newest first", _list)
    command.add_argument("--limit", type=int, default=20, metavar="N", help="maximum number of runs (default: 20)")

    add_connected(subcommands, "next", "tell what is missing until the next run starts by itself", _next)
    add_connected(subcommands, "wait", WAIT, _wait).add_argument("run", metavar="RUN")
    add_connected(subcommands, "show", "show progress or outcome of a run", _show).add_argument("run", metavar="RUN")
    add_connected(subcommands, "cancel", "cancel a run", _cancel).add_argument("run", metavar="RUN")

    command = add_connected(subcommands, "log", "print the end of the log of trainer and exporter", _log)
    command.add_argument("run", metavar="RUN")
    command.add_argument("--tail", type=int, default=1000, metavar="N", help="number of lines (default: 1000)")


def _start(client: Client, options: argparse.Namespace) -> int:
    return _started(client, client.start_run(start_from=options.start_from), options)


def _repeat(client: Client, options: argparse.Namespace) -> int:
    return _started(client, client.repeat_run(options.run, without_deleted=options.without_deleted), options)


def _started(client: Client, run: Run, options: argparse.Namespace) -> int:
    if options.wait:
        return _follow(client, run, options)
    if options.json:
        print_json(run.model_dump(mode="json"))
    else:
        say(run.id)
    return DONE


def _wait(client: Client, options: argparse.Namespace) -> int:
    return _follow(client, client.get_run(options.run), options)


def _follow(client: Client, run: Run, options: argparse.Namespace) -> int:
    from service.client.commands.run_progress import follow  # noqa: PLC0415 - slow

    over = follow(client, run)
    _print_run(over, json=options.json)
    return DONE if over.status == "judged" else FAILED


def _list(client: Client, options: argparse.Namespace) -> int:
    runs = list(itertools.islice(client.list_runs(), options.limit))
    if options.json:
        print_json([run.model_dump(mode="json") for run in runs])
    else:
        print_table(COLUMNS, map(_cells, runs))
    return DONE


def _cells(run: Run) -> tuple[object, ...]:
    step = None if run.step is None else f"{run.step}/{run.steps}"
    scores = (run.miou_before, run.miou_after, run.candidate_version)
    return (run.id, run.status, run.reason, run.created_at, run.phase, step, *scores)


def _next(client: Client, options: argparse.Namespace) -> int:
    found = client.next_run()
    if options.json:
        print_json(found.model_dump(mode="json"))
    else:
        say(found.message)
    return DONE


def _show(client: Client, options: argparse.Namespace) -> int:
    _print_run(client.get_run(options.run), json=options.json)
    return DONE


def _cancel(client: Client, options: argparse.Namespace) -> int:
    _print_run(client.cancel_run(options.run), json=options.json)
    return DONE


def _log(client: Client, options: argparse.Namespace) -> int:
    text = client.run_log(options.run, tail=options.tail)
    if options.json:
        print_json({"log": text.splitlines()})
    else:
        say(text.rstrip("\n"))
    return DONE


def _print_run(run: Run, *, json: bool) -> None:
    if json:
        print_json(run.model_dump(mode="json"))
        return
    values = run.model_dump(exclude=set(LONG))
    print_table(("RUN", ""), [(name, value) for name, value in values.items() if value is not None])
    if run.report and (sentence := run.report.get("sentence")):
        say(f"\n{sentence}")
