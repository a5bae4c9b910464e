"""Exit codes, the same for every verb of `maskloop`."""

DONE = 0
FAILED = 1
USAGE = 2
"""The command line or a file that it names cannot be used; nothing was sent."""
PARTLY = 3
"""Done in part: some images failed, and the output says which and why."""
INTERRUPTED = 130
"""Stopped by Ctrl-C."""
