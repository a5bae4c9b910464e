"""What a run raises when it cannot go on."""


class RunError(ValueError):
    """A run that cannot start or go on; the message says what to do."""
