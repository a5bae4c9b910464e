"""The second part of `make formats`: export a data set, read it with the SDK of each tool, compare to the pixel."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.trainer.data.exports.labelled_folder import NAMES, Masks, write_labelled
from trainer.data.exports.export_dataset import ExportOptions, export_dataset

READERS = {
    "coco": ("coco",),
    "datumaro": ("coco", "cvat"),
    "huggingface": ("huggingface",),
    "label_studio": ("labelstudio",),
    "roboflow": ("coco",),
}
"""Formats that the SDK of each tool reads."""
TIMEOUT_S = 600


def main() -> int:
    """Print the table. Exit code 1 if a mask differs."""
    results = []
    with tempfile.TemporaryDirectory() as work:
        masks = write_labelled(root := Path(work) / "own")
        for tool, forms in READERS.items():
            for form in forms:
                if not (export := Path(work) / form).exists():
                    export_dataset(root, export, ExportOptions(form=form, progress=False), lambda _done, _total: None)
                results.append(result := _result(tool, export, Path(work) / f"{tool}-{form}", masks))
                print(f"{tool:14} reads export-labels --to {form:12} {result}", flush=True)  # noqa: T201
    return int(any(result.startswith("DIFFERS") for result in results))


def _result(tool: str, export: Path, target: Path, masks: Masks) -> str:
    python = Path(f".venv/formats-{tool}/bin/python")
    if not (python.parents[1] / "installed").exists():
        return "cannot be installed here"
    program = [
        str(python),
        "-m",
        f"tests.trainer.data.exports.sdk_readers.read_{tool}",
        str(export),
        str(target),
        *NAMES,
    ]
    done = subprocess.run(program, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        return f"DIFFERS: its program failed: {done.stderr.strip().splitlines()[-1]}"
    wrong = [name for name, mask in masks.items() if not _equal(target / f"{name}.npy", mask)]
    return f"DIFFERS: {', '.join(wrong)}" if wrong else "equal to the pixel"


def _equal(path: Path, mask_HW: np.ndarray) -> bool:
    return path.exists() and bool(np.array_equal(np.load(path), mask_HW))


if __name__ == "__main__":
    sys.exit(main())
