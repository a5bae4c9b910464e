"""The command line: python -m service up | serve | worker | keys | settings."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from typing import Any

from service.keys.key_arguments import add_data_dir, add_keys
from service.scopes import SCOPES

# Answers come before training where both want the same cores.
WORKER_NICENESS = 10

DESCRIPTION = "Masks over HTTP, from a model that keeps getting better with the images that come in."
EPILOG = """\
start here:
  python -m service up
  curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' localhost:8000/v1/segment -o mask.png

Variables (MASKLOOP_RETRAIN_AFTER_IMAGES=100, ...) set everything else: python -m service settings lists them.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 error, 2 a command line or setting that makes no sense."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        # Imported late: what fails above is seldom one of ours, and the start is fast without.
        from pydantic import ValidationError  # noqa: PLC0415

        from service.errors import MaskloopError  # noqa: PLC0415
        from service.supervisor import SupervisorError  # noqa: PLC0415

        if isinstance(error, ValidationError):
            first = error.errors()[0]
            return _fail(f"MASKLOOP_{'_'.join(map(str, first['loc'])).upper()}: {first['msg']}", code=2)
        if isinstance(error, MaskloopError | SupervisorError | OSError):
            return _fail(str(error), code=1)
        raise


def _up(options: argparse.Namespace) -> int:
    from service.supervisor import up  # noqa: PLC0415 - each command imports what it needs

    return up(_given(options))


def _serve(options: argparse.Namespace) -> int:
    # Imports make much that stays and hardly any garbage: to look for it all the while takes a fifth of the start.
    gc.disable()
    try:
        return _served(options)
    finally:
        gc.enable()


def _served(options: argparse.Namespace) -> int:
    from service.listening_socket import take_over  # noqa: PLC0415
    from service.serve import serve  # noqa: PLC0415
    from service.settings import Settings  # noqa: PLC0415

    if options.handover is None:
        serve(Settings(**_given(options)))
    else:
        # Only now that what loads the model is imported: the parent opens the port meanwhile.
        sock, broker_url = take_over(options.handover)
        serve(Settings(broker_url=broker_url, **_given(options)), sock)
    return 0


def _worker(options: argparse.Namespace) -> int:
    # Before the imports, which would keep the API beside it from being ready; the trainer inherits it.
    os.nice(WORKER_NICENESS)
    from service.settings import Settings  # noqa: PLC0415
    from service.worker.worker_process import run_worker  # noqa: PLC0415

    return run_worker(Settings(**_given(options)))


def _settings(options: argparse.Namespace) -> int:
    from service.settings import Settings  # noqa: PLC0415
    from service.settings_table import listing, markdown  # noqa: PLC0415

    sys.stdout.write(markdown() if options.markdown else listing(Settings(**_given(options))))
    return 0


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """What the command line says, by the name of the setting."""
    given = {name: getattr(options, name, None) for name in ("host", "port", "data_dir", "model")}
    if getattr(options, "insecure", False):
        given["anonymous_scopes"] = SCOPES
    return {name: value for name, value in given.items() if value is not None}


def _fail(message: str, *, code: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser(
        "up",
        help="everything on this machine: API, worker and broker, until Ctrl-C",
        description="Start the HTTP API, a worker for retraining and a broker between them, and keep them running. "
        "Ctrl-C ends all of them; requests under way are answered and a run under way is saved first.",
    )
    _add_address(command)
    _add_place(command)
    command.set_defaults(command=_up)

    command = commands.add_parser(
        "serve",
        help="the HTTP API alone",
        description="Answer over HTTP. Without a worker, and the broker of MASKLOOP_BROKER_URL, no run is ever done.",
    )
    _add_address(command)
    _add_place(command)
    command.add_argument("--handover", type=int, metavar="FD", help=argparse.SUPPRESS)
    command.set_defaults(command=_serve)

    command = commands.add_parser(
        "worker",
        help="a worker alone, for another process or machine",
        description="Do the retraining runs that MASKLOOP_BROKER_URL brings. It needs the API's data folder and "
        "database. Ctrl-C or SIGTERM saves the run under way; the next worker resumes it.",
    )
    _add_place(command)
    command.set_defaults(command=_worker)

    add_keys(
        commands.add_parser(
            "keys",
            help="make, list and revoke the keys that callers need",
            description="Once a key was made, every call needs one. Running services follow within a second.",
        )
    )

    command = commands.add_parser(
        "settings",
        help="list all settings with their present values",
        description="List the MASKLOOP_* variables with their present values, defaults and descriptions.",
    )
    command.add_argument("--markdown", action="store_true", help="print docs/settings.md, which has no present values")
    command.set_defaults(command=_settings)
    return parser


def _add_address(command: argparse.ArgumentParser) -> None:
    command.add_argument("--host", metavar="HOST", help="address to listen on (default: 127.0.0.1, this machine only)")
    command.add_argument("--port", type=int, metavar="PORT", help="0 takes any that is free (default: 8000)")
    command.add_argument("--insecure", action="store_true", help="let everybody in who reaches it, without a key")


def _add_place(command: argparse.ArgumentParser) -> None:
    add_data_dir(command)
    command.add_argument(
        "--model", metavar="BUNDLE", help="bundle folder to begin with (default: the starter model of the package)"
    )


if __name__ == "__main__":
    sys.exit(main())
