"""python -m trainer COMMAND."""

import sys
from importlib.util import find_spec

REQUIRED_PACKAGES = ("torch", "timm", "accelerate", "safetensors")


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; 1 if packages of the trainer are missing."""
    if missing := [name for name in REQUIRED_PACKAGES if find_spec(name) is None]:
        sys.stderr.write(
            f"error: the trainer is not installed ({', '.join(missing)} missing): run `make trainer`, or "
            "`uv pip install '.[trainer,exporter]'`\n"
        )
        return 1
    # Imported after the check: it needs these packages.
    from trainer.command_line import main as run  # noqa: PLC0415

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
