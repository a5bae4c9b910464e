"""The loop under a shift of the incoming images, over HTTP, with CamVid's three video sequences.

python -m tests.scenarios.drift --data DATASET --out FOLDER      (make drift DATA=DATASET)

A model is trained with labels of one sequence and served. It gets unlabelled photographs of the same sequence, then of
the two others; the service notices, retrains and swaps. Then a run with wrong labels must be rejected, and models that
fail, or are slow, in traffic must be withdrawn. What is finished in FOLDER is not repeated. Writes table.md and
comparison.png there. The exit code is 1 if something did not happen as it should.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w

from demo.programs import run_module, running_service
from demo.terminal import Terminal
from tests.scenarios.drift_frames import DriftFrames, divide
from tests.scenarios.drift_phases import drift, faulty_release, poison, send_labels, usual_traffic, validate
from tests.scenarios.drift_picture import draw
from tests.scenarios.drift_table import failures, table
from tests.scenarios.faulty_python import write_interpreter
from tests.scenarios.frames import DUSK, image_file, write_split
from tests.scenarios.session import Session
from tests.scenarios.traffic import Traffic

RECIPE = Path(__file__).with_name("drift_recipe.toml")
FIRST_STEPS = 300
POISONED_STEPS = 100
"""Enough for wrong labels to do harm."""
WINDOW = 12
"""Images of a drift test: the sequence at dusk has 62 frames, some of them near-duplicates."""
FAULTY_RUN = 'method = "unimatch_v2"\n[train]\nsteps = 4\nlr_encoder = 1e-9\nsave_every = 4\nreport = false\n'
"""Recipe of a run that changes nothing, so that the gate finds the faulty model as good as the active one."""
TRAFFIC_PAUSE_S = 0.3


@dataclass(kw_only=True)
class Scenario:
    """Data, output folder, and the results of the finished phases."""

    data: Path
    out: Path
    frames: DriftFrames
    recipe: Path
    terminal: Terminal = field(default_factory=Terminal)
    results: dict[str, Any] = field(default_factory=dict)

    def phase(self, name: str, perform: Callable[[], dict[str, Any]]) -> None:
        """Perform a phase and store its result, unless it is stored."""
        file = self._file(name)
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(perform(), indent=1), encoding="utf-8")
        self.load((name,))

    def load(self, names: Iterable[str]) -> None:
        """Read those of the results that are stored."""
        for name in names:
            if self.is_finished(name):
                self.results[name] = json.loads(self._file(name).read_text(encoding="utf-8"))

    def is_finished(self, name: str) -> bool:
        """Whether the result of a phase is stored."""
        return self._file(name).exists()

    def _file(self, name: str) -> Path:
        return self.out / "results" / f"{name}.json"

    @contextmanager
    def service(self, name: str, **settings: object) -> Iterator[Session]:
        """Run the service on the scenario's data folder."""
        log = self.out / f"service-{name}.log"
        log.unlink(missing_ok=True)
        own = {f"MASKLOOP_{key.upper()}": str(value) for key, value in settings.items()}
        common = {
            "MASKLOOP_RETRAIN_AFTER_IMAGES": "0",
            "MASKLOOP_RETRAIN_AFTER_LABELS": "0",
            "MASKLOOP_PRECISION": "fp32",
            "MASKLOOP_RECIPE": str(self.recipe.resolve()),
        }
        with running_service(self.out / "service", self.out / "bundle", log, common | own) as url:
            key = (self.out / "service" / "api-key").read_text(encoding="utf-8").strip()
            with Session(url, key) as session:
                yield session


def main(arguments: list[str] | None = None) -> int:
    """Run the scenario and print its tables; return 1 if something did not happen as it should."""
    options = _arguments(arguments)
    frames = divide(options.data, options.first, options.labelled_share)
    scenario = Scenario(data=options.data, out=options.out, frames=frames, recipe=options.recipe)
    options.out.mkdir(parents=True, exist_ok=True)
    train_first_model(scenario, options.first_steps)
    loop(scenario, options.window)
    faults(scenario)
    text = table(scenario.results)
    (options.out / "table.md").write_text(text, encoding="utf-8")
    wrong = failures(scenario.results)
    sys.stdout.write(text + "".join(f"error: {what}\n" for what in wrong))
    return 1 if wrong else 0


def train_first_model(scenario: Scenario, steps: int) -> None:
    """Train on the labels of the first sequence only, and export the bundle."""
    out, terminal, log = scenario.out, scenario.terminal, scenario.out / "programs.log"
    for name in ("labelled", "val"):
        write_split(out / "splits", name, getattr(scenario.frames, name))
    checkpoint = out / "first" / "model.safetensors"
    overrides = {
        "method": "supervised",
        "data.root": scenario.data.resolve(),
        "data.splits": (out / "splits").resolve(),
        "train.steps": steps,
        # From ImageNet's weights; and twice the labels of a step with unlabelled images.
        "train.lr_encoder": 1e-3,
        "train.batch_labelled": 8,
    }
    if not checkpoint.exists():
        sets = [part for name, value in overrides.items() for part in ("--set", f"{name}={value}")]
        resume = ["--resume"] if (out / "first" / "resume.pt").exists() else []
        with terminal.phase(f"train a first model on {len(scenario.frames.labelled)} labels") as report:
            arguments = ("train", str(scenario.recipe), "--out", str(out / "first"), *sets, *resume)
            run_module("trainer", *arguments, log_file=log, report=report)
    if not (out / "bundle").exists():
        with terminal.phase("export it") as report:
            arguments = ("export", str(checkpoint), "--out", str(out / "bundle"), "--name", "camvid")
            run_module("exporter", *arguments, log_file=log, report=report)


def loop(scenario: Scenario, window: int) -> None:
    """Usual traffic, drift, and the run with wrong labels."""
    if scenario.is_finished("poisoned"):
        scenario.load(("usual", "drift", "validated", "poisoned"))
        return
    frames, data, terminal = scenario.frames, scenario.data, scenario.terminal
    with scenario.service("loop", retrain_on_drift="true", drift_window=window) as session:
        send_labels(session, data, frames, terminal)
        scenario.phase("usual", partial(usual_traffic, session, data, frames.usual, terminal))
        scenario.phase("drift", partial(drift, session, data, frames, terminal))
        if scenario.results["drift"]["run"]["report"]["outcome"] == "undecided":
            scenario.phase("validated", partial(validate, session, data, frames, terminal))
        found = scenario.results.get("validated", scenario.results["drift"])
        if found["scores"]:
            draw(scenario.out / "comparison.png", session, data, frames, found)
    recipe = scenario.out / "poisoned.toml"
    recipe.write_bytes(tomli_w.dumps(with_steps(scenario.recipe, POISONED_STEPS)).encode())
    with scenario.service("poisoned", recipe=recipe.resolve()) as session:
        scenario.phase("poisoned", partial(poison, session, data, frames, terminal))


def with_steps(recipe: Path, steps: int) -> dict[str, Any]:
    """Read a recipe, with another number of steps."""
    table = tomllib.loads(recipe.read_text(encoding="utf-8"))
    return {**table, "train": {**table["train"], "steps": steps}}


def faults(scenario: Scenario) -> None:
    """Release models with a fault that only traffic shows."""
    recipe = scenario.out / "faulty.toml"
    recipe.write_text(FAULTY_RUN, encoding="utf-8")
    images = [image_file(scenario.data, frame) for frame in (*scenario.frames.usual, *scenario.frames.new)]
    for name, fault in (("failing", "large"), ("slow", "slow")):
        interpreter = (scenario.out / f"python-{fault}").resolve()
        write_interpreter(interpreter, fault)
        if scenario.is_finished(name):
            scenario.load((name,))
            continue
        with (
            scenario.service(name, recipe=recipe.resolve(), trainer_python=interpreter) as session,
            Traffic(session.url, images, TRAFFIC_PAUSE_S) as traffic,
        ):
            scenario.phase(name, partial(faulty_release, session, traffic, scenario.terminal))


def _arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of CamVid, with images/ and masks/")
    parser.add_argument("--out", type=Path, required=True, help="folder for models, the service's data and results")
    parser.add_argument("--first", default=DUSK, help="the sequence with labels")
    parser.add_argument("--labelled-share", type=float, default=0.6, help="of its stretches of video")
    parser.add_argument("--first-steps", type=int, default=FIRST_STEPS, help="steps of the first training")
    parser.add_argument("--window", type=int, default=WINDOW, help="images of a drift test")
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main())
