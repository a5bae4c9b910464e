"""Which of several data-parallel processes writes files and messages."""

import os


def is_main_process() -> bool:
    """Whether the launcher made this process rank 0; can be called before the process group exists."""
    return int(os.environ.get("RANK", "0")) == 0
