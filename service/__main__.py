"""Command line: maskloop up | serve | worker | repeat | keys | settings, also as python -m service."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from typing import Any

from service.keys.key_commands import add_data_dir, add_keys

# Serving takes precedence over training on shared cores.
WORKER_NICENESS = 10

DESCRIPTION = "Semantic segmentation over HTTP, with a model that is retrained on the images that clients contribute."
EPILOG = """\
start here:
  %(prog)s up
  curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' localhost:8000/v1/segment -o mask.png

All other settings are MASKLOOP_* environment variables (MASKLOOP_RETRAIN_AFTER_IMAGES=100, ...): see
%(prog)s settings.
"""


def main(arguments: list[str] | None = None, prog: str = "python -m service") -> int:
    """Run one command and return its exit code: 0 success, 1 error, 2 invalid command line or setting.

    `prog` is how the program was started, for its help.
    """
    options = parser("", prog).parse_args(arguments)
    try:
        return int(options.command(options))
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        # Imported late, for a fast start.
        from pydantic import ValidationError  # noqa: PLC0415

        from service.errors import MaskloopError  # noqa: PLC0415
        from service.supervisor import SupervisorError  # noqa: PLC0415

        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = first["msg"].removeprefix("Value error, ")
            return _fail(f"MASKLOOP_{'_'.join(map(str, first['loc'])).upper()}: {reason}", code=2)
        if message := _storage_message(error, options):
            return _fail(message, code=1)
        if isinstance(error, MaskloopError | SupervisorError | OSError):
            return _fail(str(error), code=1)
        raise


def _up(options: argparse.Namespace) -> int:
    from service.supervisor import up  # noqa: PLC0415 - each command imports only what it needs

    return up(_given_settings(options))


def _serve(options: argparse.Namespace) -> int:
    # Imports create hardly any garbage; collections would take a fifth of the start time.
    gc.disable()
    try:
        from service.listening_socket import receive_socket  # noqa: PLC0415
        from service.serve import serve  # noqa: PLC0415
        from service.settings import Settings  # noqa: PLC0415

        if options.handover is None:
            serve(Settings(**_given_settings(options)))
        else:
            # After the imports above, while the parent opens the port.
            sock, broker_url = receive_socket(options.handover)
            serve(Settings(broker_url=broker_url, **_given_settings(options)), sock)
    finally:
        gc.enable()
    return 0


def _worker(options: argparse.Namespace) -> int:
    # Before the imports, which would delay the API's start. The trainer inherits this.
    os.nice(WORKER_NICENESS)
    from service.settings import Settings  # noqa: PLC0415
    from service.worker.worker_process import run_worker  # noqa: PLC0415

    return run_worker(Settings(**_given_settings(options)), options.ready_fd)


def _repeat(options: argparse.Namespace) -> int:
    from service.logs import configure_logs  # noqa: PLC0415
    from service.settings import Settings  # noqa: PLC0415
    from service.state import open_state  # noqa: PLC0415

    settings = Settings(**_given_settings(options))
    if not settings.has_database:
        raise FileNotFoundError(f"{settings.data_dir} contains no database: pass the --data-dir of the service.")
    # The broker of `up` is private: a worker finds the run within seconds, and no warning of that is needed.
    configure_logs(settings if settings.broker_url else settings.model_copy(update={"log_level": "ERROR"}))
    state = open_state(settings)
    try:
        run = state.retrain_policy.repeat(options.run, without_deleted=options.without_deleted)
    finally:
        state.close()
    sys.stdout.write(f"{run.id}\n")
    return 0


def _settings(options: argparse.Namespace) -> int:
    from service.settings import Settings  # noqa: PLC0415
    from service.settings_table import listing, markdown  # noqa: PLC0415

    sys.stdout.write(markdown() if options.markdown else listing(Settings(**_given_settings(options))))
    return 0


def _given_settings(options: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(options, name, None) for name in ("host", "port", "data_dir", "model")}
    return {name: value for name, value in given.items() if value is not None}


def _storage_message(error: Exception, options: argparse.Namespace) -> str | None:
    from service.errors import StorageFailed  # noqa: PLC0415
    from service.settings import Settings  # noqa: PLC0415
    from service.storage.storage_faults import reason_of, storage_fault  # noqa: PLC0415

    fault = storage_fault(error, Settings(**_given_settings(options)).data_dir)
    return f"{fault} ({reason_of(error)})" if isinstance(fault, StorageFailed) else str(fault) if fault else None


def _fail(message: str, *, code: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    return code


def parser(_chosen: str, prog: str) -> argparse.ArgumentParser:
    """Return the parser of all commands, whichever is chosen: it is quick to build."""
    whole = argparse.ArgumentParser(
        prog=prog,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = whole.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser(
        "up",
        help="run everything on this machine: API, worker and broker",
        description="Run the HTTP API, a training worker and a broker, and restart those that crash. Ctrl-C stops "
        "all of them: running requests are finished, and a training run saves its state.",
    )
    _add_address(command)
    _add_data_and_model(command)
    command.set_defaults(command=_up)

    command = commands.add_parser(
        "serve",
        help="run the HTTP API alone",
        description="Run the HTTP API. Training runs also need a worker and the broker of MASKLOOP_BROKER_URL.",
    )
    _add_address(command)
    _add_data_and_model(command)
    command.add_argument("--handover", type=int, metavar="FD", help=argparse.SUPPRESS)
    command.set_defaults(command=_serve)

    command = commands.add_parser(
        "worker",
        help="run a worker alone, in another process or on another machine",
        description="Execute the training runs queued at MASKLOOP_BROKER_URL. The worker needs the data folder and "
        "the database of the API. Ctrl-C or SIGTERM saves the current run; the next worker resumes it.",
    )
    _add_data_and_model(command)
    command.add_argument("--ready-fd", type=int, metavar="FD", help=argparse.SUPPRESS)
    command.set_defaults(command=_worker)

    command = commands.add_parser(
        "keys",
        help="manage API keys",
        description="Create, list, revoke and show API keys. Running services apply changes within a second.",
    )
    add_keys(command)

    _add_repeat(commands)

    command = commands.add_parser(
        "settings",
        help="list all settings with their current values",
        description="List the MASKLOOP_* variables with their current values, defaults and descriptions.",
    )
    command.add_argument("--markdown", action="store_true", help="print docs/settings.md, which has no current values")
    command.set_defaults(command=_settings)
    return whole


def _add_repeat(commands: Any) -> None:
    command = commands.add_parser(
        "repeat",
        help="repeat a training run",
        description="Start a training run with the images, labels, recipe and seed of another one, and print its id. A "
        "running worker performs it.",
    )
    command.add_argument("run", metavar="RUN", help="id of the run, see GET /v1/runs")
    command.add_argument("--without-deleted", action="store_true", help="leave out images that were deleted since")
    add_data_dir(command)
    command.set_defaults(command=_repeat)


def _add_address(command: argparse.ArgumentParser) -> None:
    command.add_argument("--host", metavar="HOST", help="address to listen on (default: 127.0.0.1, this machine only)")
    command.add_argument("--port", type=int, metavar="PORT", help="port to listen on; 0: any free one (default: 8000)")


def _add_data_and_model(command: argparse.ArgumentParser) -> None:
    add_data_dir(command)
    command.add_argument(
        "--model", metavar="BUNDLE", help="bundle folder of the first model (default: the bundled starter model)"
    )


if __name__ == "__main__":
    sys.exit(main())
