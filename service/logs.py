"""Logging: structlog for our own lines and, through it, for every library that uses `logging`."""

from __future__ import annotations

import logging
import sys
import warnings

import structlog

from service.settings import Settings


def configure_logs(settings: Settings) -> None:
    """Send every log line to stderr, as JSON or for a console. Called once by a program's entry, never by an import."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_renderers(settings.log_format))
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    # Pillow warns of every oddity in a client's file; what matters is refused with a reason.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # One line a request is the access log of `api/app.py`; migrations speak only when something is wrong.
    for name, level in {"uvicorn.access": "WARNING", "alembic": "WARNING"}.items():
        logging.getLogger(name).setLevel(level)


def _renderers(log_format: str) -> list[structlog.typing.Processor]:
    strip = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if log_format == "json":
        return [strip, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    # Where rich is installed, the default would show the variables of every function: keys, and images.
    plain = structlog.dev.plain_traceback
    return [strip, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
