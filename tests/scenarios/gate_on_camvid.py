"""Does the gate judge real models as their true order says? CamVid models trained for different times.

python -m tests.scenarios.gate_on_camvid --data DATASET --out FOLDER      (make camvid-gate DATA=DATASET)

Models that are finished in FOLDER are not trained again; an interrupted training is resumed. Writes table.md and
verdicts.png to FOLDER.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from demo.terminal import Terminal
from service.releases.gate.statistics.class_counts import Indices, number_units
from service.releases.gate.statistics.difference import Difference
from tests.scenarios.gate_draws import Judge
from tests.scenarios.gate_models import SECONDS, STEPS, ScoredModel, divide, export_models, score_models, train_models
from tests.scenarios.gate_plot import draw_verdicts
from tests.scenarios.gate_table import errors_table, models_table, pairs_table, verdicts_table

SIZES, DRAWS = (8, 16, 30), 20


def main(arguments: list[str] | None = None) -> int:
    """Train, judge, and write the tables."""
    options = _arguments(arguments)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    terminal = Terminal()
    checkpoints = train_models(options.data, out, options.steps, options.overrides)
    bundles = export_models(checkpoints, out, terminal)
    _, frames = divide(options.data)
    models = score_models(bundles, options.data, frames, terminal)
    unit_I = number_units([frame.group(SECONDS) for frame in frames])
    judge = Judge(models, unit_I, [entry.name for entry in models[0].bundle.manifest.classes])
    with terminal.phase("judge every pair on drawn validation sets") as report:
        trials = judge.trials(options.sizes, options.draws, report)
    text = "\n".join(
        [
            _about(len(frames), unit_I, options.draws),
            models_table(models),
            verdicts_table(trials),
            errors_table(trials),
            pairs_table(_pairs(models, judge), trials, options.sizes[len(options.sizes) // 2]),
        ]
    )
    (out / "table.md").write_text(text, encoding="utf-8")
    draw_verdicts(out / "verdicts.png", trials)
    sys.stdout.write(text)
    return 0


def _about(images: int, unit_I: Indices, draws: int) -> str:
    return (
        f"{images} photographs outside training, in {int(unit_I.max()) + 1} stretches of {SECONDS} s; {draws} "
        "validation sets of each size.\n"
    )


def _pairs(models: Sequence[ScoredModel], judge: Judge) -> list[tuple[str, str, Difference]]:
    """All pairs with their difference on all images, the better model first."""
    ranked = sorted(models, key=lambda model: judge.difference(model, models[0]).value)
    return [(better.name, worse.name, judge.difference(better, worse)) for worse, better in combinations(ranked, 2)]


def _arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of CamVid, with images/ and masks/")
    parser.add_argument("--out", type=Path, required=True, help="folder for models and results")
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS), help="lengths of the trainings")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="stretches in a validation set")
    parser.add_argument("--draws", type=int, default=DRAWS, help="validation sets of each size")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=VALUE")
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main())
