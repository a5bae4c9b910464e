"""maskloop COMMAND, also as python -m trainer COMMAND."""

import sys

from trainer.command_line import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
