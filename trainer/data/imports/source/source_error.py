"""The error of a source that cannot be imported."""

from trainer.user_error import UserError


class SourceError(UserError):
    """A source that cannot be imported; the message names the file and the remedy."""
