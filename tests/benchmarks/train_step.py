"""Compare our training step with a plain implementation of the published one (make bench-train).

python -m tests.benchmarks.train_step [--model NAME] [--crop N] [--batch N] [--device cuda] [--steps N] [--json]

Both implementations train the same network with random weights on the same generated images, from decoding to the
updated teacher. Every image counts once, labelled or not: a step has twice --batch images. Rounds alternate, each in
its own process, so that neither implementation is affected by the other's allocations. A round starts with three
untimed steps. Memory is the peak of that process without its workers.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from tests.benchmarks.data_pipeline import pipeline_figures
from tests.benchmarks.implementations import (
    IMPLEMENTATIONS,
    MODELS,
    Implementation,
    OurTrainer,
    build_implementation,
    peak_memory,
    recipe,
    synchronise,
)
from tests.benchmarks.roofline import roofline
from tests.benchmarks.synthetic_dataset import write_dataset

ROOT = Path(__file__).parents[2]
WARM_UP_STEPS = 3
IMAGES = 32
PAPER_CROP = 518
SETTINGS = ("model", "crop", "batch", "steps", "rounds", "compile", "precision")


def main() -> int:
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        root = options.dataset or write_dataset(Path(folder) / "dataset", IMAGES)
        if options.round_of:
            sys.stdout.write(json.dumps(one_round(build_implementation(options.round_of, root, options), options)))
            return 0
        found = measure(root, options)
    sys.stdout.write(json.dumps(found, indent=1) + "\n" if options.json else text(found))
    return 0


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; some defaults depend on the device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cuda = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--model", choices=MODELS, help="DINOv2-S or B (default: base on a GPU)")
    parser.add_argument("--crop", type=int, help="pixels, a multiple of 14 (default: 518 on a GPU, 224 on a CPU)")
    parser.add_argument("--batch", type=int, default=4, help="labelled images per step, and as many unlabelled ones")
    parser.add_argument("--steps", type=int, help="timed steps per round (default: 30 on a GPU, 3 on a CPU)")
    parser.add_argument("--rounds", type=int, help="default: 5 on a GPU, 3 on a CPU")
    parser.add_argument("--workers", type=int, help="worker processes of our loaders (default: 4 on a GPU, 0 on a CPU)")
    parser.add_argument(
        "--plain-workers", type=int, default=4, help="worker processes of the plain implementation's loaders"
    )
    parser.add_argument("--compile", action="store_true", help="set train.compile for our step")
    parser.add_argument(
        "--precision", choices=("auto", "bf16"), default="auto", help="precision of our step (default: auto)"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--round-of", choices=IMPLEMENTATIONS, help=argparse.SUPPRESS)
    parser.add_argument("--dataset", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    on_gpu = options.device != "cpu"
    options.model = options.model or ("base" if on_gpu else "small")
    options.crop = options.crop or (518 if on_gpu else 224)
    options.rounds = options.rounds or (5 if on_gpu else 3)
    options.steps = options.steps or (30 if on_gpu else 3)
    options.workers = (4 if on_gpu else 0) if options.workers is None else options.workers
    return options


def measure(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run all rounds and return the figures by name."""
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in IMPLEMENTATIONS}
    for _ in range(options.rounds):
        for name in IMPLEMENTATIONS:
            rounds[name].append(run_round(name, root, options))
    rates = {name: [figures["images_per_s"] for figures in results] for name, results in rounds.items()}
    speed = {name: median(values) for name, values in rates.items()}
    ours = OurTrainer(recipe(root, options), torch.device(options.device))
    return {
        "machine": machine(options),
        "setting": {name: getattr(options, name) for name in SETTINGS},
        "workers": {"ours": options.workers, "plain": options.plain_workers},
        "images_per_s": speed,
        "images_per_s_of_rounds": rates,
        "speed_up": speed["ours"] / speed["plain"],
        "peak_bytes": {name: results[0]["peak_bytes"] for name, results in rounds.items()},
        "data": {crop: pipeline_figures(root, crop) for crop in sorted({options.crop, PAPER_CROP})},
        "limit": roofline(ours, 2 * options.batch / speed["ours"]),
    }


def one_round(implementation: Implementation, options: argparse.Namespace) -> dict[str, Any]:
    """Run one round in this process; return images/s and peak memory (None on Windows)."""
    batches = implementation.batches()
    for _ in range(WARM_UP_STEPS):
        implementation.step(next(batches))
    synchronise(implementation.device)
    began = time.perf_counter()
    for _ in range(options.steps):
        implementation.step(next(batches))
    synchronise(implementation.device)
    rate = options.steps * 2 * options.batch / (time.perf_counter() - began)
    return {"images_per_s": rate, "peak_bytes": peak_memory(implementation.device)}


def run_round(name: str, root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run one round of one implementation in a new process and return its figures."""
    command = [sys.executable, "-m", "tests.benchmarks.train_step", "--round-of", name, "--dataset", str(root)]
    keys = ("device", "model", "crop", "batch", "steps", "workers", "plain_workers", "precision")
    command += [f"--{key.replace('_', '-')}={getattr(options, key)}" for key in keys]
    command += ["--compile"] if options.compile else []
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def machine(options: argparse.Namespace) -> str:
    """Return the device and the version of torch."""
    if options.device != "cpu":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"


def text(found: dict[str, Any]) -> str:
    """Format the figures as text with a Markdown table."""
    setting = found["setting"]
    title = (
        f"{found['machine']}\n"
        f"ViT-{setting['model'][0].upper()}, crop {setting['crop']}, {setting['batch']}+{setting['batch']} images, "
        f"median of {setting['rounds']} rounds of {setting['steps']} steps"
    )
    return f"{title}\n\n{_table(found)}\n\n{_roofline_text(found['limit'])}\n"


def _table(found: dict[str, Any]) -> str:
    memory = found["peak_bytes"]
    rows = {"images/s": found["images_per_s"]}
    if all(memory.values()):
        rows["peak memory, GiB"] = {name: value / 2**30 for name, value in memory.items()}
    for crop, data in found["data"].items():
        where = f"crop {crop}, data alone"
        rows[f"{where}, images/s per core"] = {name: figures["images_per_s_per_core"] for name, figures in data.items()}
        rows[f"{where}, MB per image to the device"] = {
            name: figures["device_bytes"] / 1e6 for name, figures in data.items()
        }
    lines = ["|  | plain | ours | ours / plain |", "|---|---|---|---|"]
    lines += [
        f"| {what} | {row['plain']:.2f} | {row['ours']:.2f} | {row['ours'] / row['plain']:.2f} |"
        for what, row in rows.items()
    ]
    return "\n".join(lines)


def _roofline_text(limit: dict[str, Any]) -> str:
    return (
        f"Our step needs {limit['flop'] / 1e12:.3f} TFLOP and at least {limit['bytes'] / 1e9:.2f} GB of traffic.\n"
        f"This machine reaches {limit['flop_per_s'] / 1e12:.3f} TFLOP/s in a matrix product ({limit['precision']}) and "
        f"{limit['bytes_per_s'] / 1e9:.1f} GB/s in a copy.\n"
        f"Lower bound {limit['limit_s'] * 1e3:.1f} ms per step; ours takes {limit['step_s'] * 1e3:.1f} ms: "
        f"{100 * limit['limit_s'] / limit['step_s']:.0f}% of the machine's peak."
    )


if __name__ == "__main__":
    sys.exit(main())
