"""Logging: structlog for our own lines and, in the same form, for every library that uses `logging`."""

from __future__ import annotations

import logging
import sys
import warnings
from contextlib import suppress

import structlog

from service.settings import Settings


def configure_logs(settings: Settings) -> None:
    """Send every log line to stderr, as JSON or for a console. Called once by a program's entry, never by an import."""
    shared: list[structlog.typing.Processor] = [
        # The ids of the request or run at hand, see `api/observe.py`.
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers = _renderers(settings.log_format)
    structlog.configure(
        processors=[*shared, *renderers],
        logger_factory=_Lines,
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    # Pillow warns of every oddity in a client's file; what matters is refused with a reason.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # One line a request is that of `api/observe.py`; migrations speak only when something is wrong.
    for name, level in {"uvicorn.access": "WARNING", "alembic": "WARNING"}.items():
        logging.getLogger(name).setLevel(level)


class _Lines:
    """Writes our own lines past `logging`, which takes three times as long for each request that it tells of."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def info(self, line: str) -> None:
        # A full disk or a closed pipe is no reason to fail the request that is told of; `logging` sees it so too.
        with suppress(OSError, ValueError):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    debug = warning = error = critical = info


def _renderers(log_format: str) -> list[structlog.typing.Processor]:
    if log_format == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    # Where rich is installed, the default would show the variables of every function: keys, and images.
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
