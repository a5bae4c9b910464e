"""Base class of the errors that the command line shows without a traceback."""


class UserError(ValueError):
    """Input that cannot be used; the message names it and the remedy."""
