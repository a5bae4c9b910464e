"""CamVid models trained for different times, as bundles, and their counts on the photographs outside training."""

# I images, K classes

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from demo.programs import run_module
from demo.terminal import Terminal
from service.models.bundle import MANIFEST, Bundle, read_bundle
from service.models.loading import load_model
from service.releases.gate.class_scopes import ModelIds
from service.releases.gate.scoring import Measurement, measure
from service.releases.gate.statistics.class_counts import ClassCounts
from service.releases.gate.validation_samples import Sample, SampleFiles, read_samples
from service.segmentation.decode import Limits
from service.settings import Settings
from tests.scenarios.frames import Frame, draw_groups, image_file, mask_file, read_frames, without, write_split
from tests.service.class_lists import model_list

STEPS = (25, 50, 100, 200)
SECOND_SEED = (100, 200)
"""Lengths at which a second model, of another seed, is trained: two equally good models."""
TRAINING_SHARE = 0.15
"""Share of the stretches of video whose labels are for training."""
SECONDS = 5
"""Length of a stretch. Frames of one second apart show much of the same; 5 seconds later, the street is another."""


@dataclass(frozen=True, slots=True)
class ScoredModel:
    """A model and its counts on the images outside training, in their order."""

    name: str
    bundle: Bundle
    counts: ClassCounts


def divide(data: Path) -> tuple[list[Frame], list[Frame]]:
    """Divide the frames into those for training and the others."""
    frames = read_frames(data)
    training = draw_groups(frames, seconds=SECONDS, share=TRAINING_SHARE, seed=0)
    return training, without(frames, training)


def train_models(data: Path, out: Path, lengths: Sequence[int], overrides: Sequence[str]) -> dict[str, Path]:
    """Train the models that are not finished; return the checkpoint of each by its name."""
    # Imports torch, which the tests of this folder do not need.
    from tests.benchmarks.methods import RECIPE, RunSpec, train_all

    training, others = divide(data)
    splits = out.resolve() / "splits"
    write_split(splits, "training", training)
    # A few, since the trainer evaluates every model at its end; the comparison uses all.
    write_split(splits, "others", others[::20])
    seeds = [(steps, 0) for steps in lengths] + [(steps, 1) for steps in lengths if steps in SECOND_SEED]
    specs = {
        f"{steps} steps" + (", other seed" if seed else ""): RunSpec(
            f"{steps}_steps", "supervised", seed, (*_overrides(data, splits, steps, seed), *overrides)
        )
        for steps, seed in seeds
    }
    train_all(list(specs.values()), RECIPE, out / "runs")
    return {name: spec.folder(out / "runs") / "model.safetensors" for name, spec in specs.items()}


def export_models(checkpoints: dict[str, Path], out: Path, terminal: Terminal) -> dict[str, Bundle]:
    """Export the checkpoints that have no bundle yet."""
    bundles = {}
    with terminal.phase("export the models") as report:
        for number, (name, checkpoint) in enumerate(checkpoints.items(), 1):
            folder = checkpoint.parent / "bundle"
            if not (folder / MANIFEST).exists():
                arguments = ("export", str(checkpoint), "--out", str(folder), "--name", "camvid")
                run_module("exporter", *arguments, log_file=out / "programs.log", report=lambda *_: None)
            bundles[name] = read_bundle(folder)
            report(number, len(checkpoints))
    return bundles


def score_models(
    bundles: dict[str, Bundle], data: Path, frames: Sequence[Frame], terminal: Terminal
) -> list[ScoredModel]:
    """Run the models on the frames, as the gate does."""
    settings = Settings(precision="fp32", device="cpu")
    models = [load_model(bundle, settings) for bundle in bundles.values()]
    classes = model_list(models[0].bundle.manifest)
    with terminal.phase(f"run {len(models)} models on {len(frames)} images") as report:

        def samples() -> Iterator[Sample]:
            files = (SampleFiles(image_file(data, frame), mask_file(data, frame)) for frame in frames)
            limits = Limits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels)
            for number, sample in enumerate(read_samples(files, classes, {None}, limits), 1):
                yield sample
                report(number, len(frames))

        own_K = np.ones(len(classes), bool)
        measurements = [Measurement(model, classes, ModelIds(tuple(range(len(classes)))), [own_K]) for model in models]
        measure(measurements, samples())
    return [
        ScoredModel(name, measurement.model.bundle, measurement.counts())
        for name, measurement in zip(bundles, measurements, strict=True)
    ]


def _overrides(data: Path, splits: Path, steps: int, seed: int) -> tuple[str, ...]:
    return (
        f"data.root='{data.resolve().as_posix()}'",
        f"data.splits='{splits.as_posix()}'",
        "data.labelled=training",
        "data.val=others",
        "method=supervised",
        # As tests/benchmarks/methods.py: twice the labels of a step with unlabelled images.
        "train.batch_labelled=8",
        "train.evaluate_every=0",
        f"train.steps={steps}",
        f"seed={seed}",
    )
