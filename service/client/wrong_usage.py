"""The error for a command line that cannot be used."""


class WrongUsage(Exception):  # noqa: N818 - what happened
    """The command line, or a file that it names, cannot be used. The text states the remedy."""
