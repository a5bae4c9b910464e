"""What the exporter says: JSON lines on stdout for programs, plain sentences on stderr for people."""

import json
import sys
from typing import Any


def emit(event: str, **fields: Any) -> None:
    """One JSON object, one line, at once."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """A line for the person who started the program."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
