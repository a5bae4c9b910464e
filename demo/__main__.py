"""Command line: python -m demo [--photo FILE] [--out DIR]."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from demo import DemoError

REQUIRED_PACKAGES = ("torch", "onnx", "onnxruntime", "skimage", "httpx", "rich")

DESCRIPTION = """\
Show the whole loop in 5 to 7 minutes on 2 CPU cores:

  1. make a data set of texture mosaics: 6 labelled, 240 unlabelled, 60 for validation
  2. train a first model on the 6 labels, export it, and start the service with it
  3. send all images; the service retrains itself with UniMatch V2 and swaps the model while a client sends requests
  4. print the mIoU of both models and write pictures to DIR/pictures

The exit code is 0 if the mIoU increased and no request failed, else 1.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration and return its exit code: 0 success, 1 failure, 2 invalid command line, 130 Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description=DESCRIPTION,
        epilog="The data set alone: python -m demo.textures DATASET",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--photo", type=Path, metavar="FILE", help="street photograph for the starter model to segment")
    parser.add_argument(
        "--out", type=Path, default=Path("demo-out"), metavar="DIR", help="output folder (default: demo-out)"
    )
    options = parser.parse_args(arguments)
    try:
        check_installed()
        # Imported after the check: it needs httpx and rich.
        from demo.loop import run_demo  # noqa: PLC0415

        return run_demo(options.out, options.photo)
    except KeyboardInterrupt:
        return 130
    except (DemoError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


def check_installed() -> None:
    """Check that the required packages are installed, without importing them. Raises DemoError."""
    missing = [name for name in REQUIRED_PACKAGES if find_spec(name) is None]
    if missing:
        raise DemoError(
            f"{', '.join(missing)} not installed: run `make demo`, or `uv pip install '.[trainer,exporter,demo]'`"
        )


if __name__ == "__main__":
    sys.exit(main())
