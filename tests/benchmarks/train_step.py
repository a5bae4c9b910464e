"""Our training step against a plain reading of the published one, in one run on one machine (make bench-train).

python -m tests.benchmarks.train_step [--model small|base] [--crop N] [--batch N] [--device cuda] [--steps N] [--json]

Both sides train the same network, weights random, on the same generated photographs, from decoding to the updated
teacher. An image counts once, labelled or not: a step has twice --batch of them. Rounds of both sides alternate. Each
is a process of its own, so that no side profits or suffers from what the other did to the allocator, and begins with
three steps that are not timed. Memory is that process's peak, without its workers.
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
from tests.benchmarks.limit import limit_figures
from tests.benchmarks.photographs import write_photographs
from tests.benchmarks.sides import SIDES, Ours, Side, build_side, peak_memory, recipe, synchronise

ROOT = Path(__file__).parents[2]
WARM_UP_STEPS = 3
PHOTOGRAPHS = 32
PAPER_CROP = 518
SETTING = ("model", "crop", "batch", "steps", "rounds", "compile", "precision")


def main() -> int:
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        root = options.photographs or write_photographs(Path(folder) / "photographs", PHOTOGRAPHS)
        if options.round_of:
            sys.stdout.write(json.dumps(one_round(build_side(options.round_of, root, options), options)))
            return 0
        found = measure(root, options)
    sys.stdout.write(json.dumps(found, indent=1) + "\n" if options.json else text(found))
    return 0


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line, with the defaults of the device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cuda = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--model", choices=("small", "base"), help="DINOv2-S or B (default: base on a GPU)")
    parser.add_argument("--crop", type=int, help="pixels, a multiple of 14 (default: 518 on a GPU, 224 on a CPU)")
    parser.add_argument("--batch", type=int, default=4, help="labelled images of a step, and as many unlabelled ones")
    parser.add_argument("--steps", type=int, help="timed steps of a round (default: 30 on a GPU, 3 on a CPU)")
    parser.add_argument("--rounds", type=int, help="default: 5 on a GPU, 3 on a CPU")
    parser.add_argument("--workers", type=int, help="of our loaders (default: 4 on a GPU, 0 on a CPU)")
    parser.add_argument("--plain-workers", type=int, default=4, help="of the published step's loaders")
    parser.add_argument("--compile", action="store_true", help="train.compile for our side")
    parser.add_argument("--precision", choices=("auto", "bf16"), default="auto", help="of our side (default: auto)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--round-of", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--photographs", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    on_gpu = options.device != "cpu"
    options.model = options.model or ("base" if on_gpu else "small")
    options.crop = options.crop or (518 if on_gpu else 224)
    options.rounds = options.rounds or (5 if on_gpu else 3)
    options.steps = options.steps or (30 if on_gpu else 3)
    options.workers = (4 if on_gpu else 0) if options.workers is None else options.workers
    return options


def measure(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All figures, by name."""
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in SIDES}
    for _ in range(options.rounds):
        for name in SIDES:
            rounds[name].append(round_of(name, root, options))
    rates = {name: [found["images_per_s"] for found in side] for name, side in rounds.items()}
    speed = {name: median(values) for name, values in rates.items()}
    ours = Ours(recipe(root, options), torch.device(options.device))
    return {
        "machine": machine(options),
        "setting": {name: getattr(options, name) for name in SETTING},
        "workers": {"ours": options.workers, "plain": options.plain_workers},
        "images_per_s": speed,
        "images_per_s_of_rounds": rates,
        "speed_up": speed["ours"] / speed["plain"],
        "peak_bytes": {name: side[0]["peak_bytes"] for name, side in rounds.items()},
        "data": {crop: pipeline_figures(root, crop) for crop in sorted({options.crop, PAPER_CROP})},
        "limit": limit_figures(ours, 2 * options.batch / speed["ours"]),
    }


def one_round(side: Side, options: argparse.Namespace) -> dict[str, Any]:
    """Images a second, and peak memory (None where it cannot be had), of this process alone."""
    batches = side.batches()
    for _ in range(WARM_UP_STEPS):
        side.step(next(batches))
    synchronise(side.device)
    began = time.perf_counter()
    for _ in range(options.steps):
        side.step(next(batches))
    synchronise(side.device)
    rate = options.steps * 2 * options.batch / (time.perf_counter() - began)
    return {"images_per_s": rate, "peak_bytes": peak_memory(side.device)}


def round_of(name: str, root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one round of one side, in a process of its own."""
    words = [sys.executable, "-m", "tests.benchmarks.train_step", "--round-of", name, "--photographs", str(root)]
    keys = ("device", "model", "crop", "batch", "steps", "workers", "plain_workers", "precision")
    words += [f"--{key.replace('_', '-')}={getattr(options, key)}" for key in keys]
    words += ["--compile"] if options.compile else []
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\nended with {done.returncode}:\n{done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def machine(options: argparse.Namespace) -> str:
    """What it ran on."""
    if options.device != "cpu":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"


def text(found: dict[str, Any]) -> str:
    """The figures for people."""
    setting = found["setting"]
    title = (
        f"{found['machine']}\n"
        f"ViT-{setting['model'][0].upper()}, crop {setting['crop']}, {setting['batch']}+{setting['batch']} images, "
        f"median of {setting['rounds']} rounds of {setting['steps']} steps"
    )
    return f"{title}\n\n{_table(found)}\n\n{_limit(found['limit'])}\n"


def _table(found: dict[str, Any]) -> str:
    memory = found["peak_bytes"]
    rows = {"images/s": found["images_per_s"]}
    if all(memory.values()):
        rows["peak memory, GiB"] = {name: value / 2**30 for name, value in memory.items()}
    for crop, data in found["data"].items():
        where = f"crop {crop}, data alone"
        rows[f"{where}, images/s per core"] = {name: side["images_per_s_per_core"] for name, side in data.items()}
        rows[f"{where}, MB an image to the device"] = {name: side["wire_bytes"] / 1e6 for name, side in data.items()}
    lines = ["|  | plain | ours | ours / plain |", "|---|---|---|---|"]
    lines += [
        f"| {what} | {row['plain']:.2f} | {row['ours']:.2f} | {row['ours'] / row['plain']:.2f} |"
        for what, row in rows.items()
    ]
    return "\n".join(lines)


def _limit(limit: dict[str, Any]) -> str:
    return (
        f"One step of ours: {limit['flop'] / 1e12:.3f} TFLOP, {limit['bytes'] / 1e9:.2f} GB of traffic at least.\n"
        f"This machine does {limit['flop_per_s'] / 1e12:.3f} TFLOP/s in a matrix product ({limit['precision']}) and "
        f"{limit['bytes_per_s'] / 1e9:.1f} GB/s in a copy.\n"
        f"Limit {limit['limit_s'] * 1e3:.1f} ms a step; ours takes {limit['step_s'] * 1e3:.1f} ms: "
        f"{100 * limit['limit_s'] / limit['step_s']:.0f}% of what the machine could do."
    )


if __name__ == "__main__":
    sys.exit(main())
