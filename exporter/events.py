"""Output of the command line: JSON lines on stdout for programs, messages on stderr for people."""

import json
import sys
from typing import Any


def emit(event: str, **fields: Any) -> None:
    """Write an event to stdout as a line of JSON."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """Write a message to stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
