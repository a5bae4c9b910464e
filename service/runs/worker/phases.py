"""Phases of a run: prepare, train, export, judge.

Each phase stores its result in the folder or the row of the run, and is skipped if that exists. So a run whose worker
died continues from the last state that the trainer saved, and a duplicate message is harmless.

    DATA/runs/ID/dataset/      snapshot of the pool              (prepare)
    DATA/runs/ID/recipe.toml   recipe of the trainer             (prepare)
    DATA/runs/ID/attempt-N/    unfinished output of both programs
    DATA/runs/ID/train/        output of the trainer             (train)
    DATA/runs/ID/bundle/       candidate                         (export)
    DATA/runs/ID/log.txt       command lines and stderr of both programs
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from service.classes.class_list import ClassList
from service.errors import names_only
from service.images.image_store import ImageStore
from service.models.bundle import MANIFEST, Bundle
from service.models.model_store import ModelStore
from service.models.precision import choose_precision
from service.process_identity import end_group, process_identity
from service.releases.gate.best_version import find_best
from service.releases.gate.class_scopes import Judged
from service.releases.gate.judge import check_guard_classes, judge
from service.releases.gate.validation_samples import Sample, read_samples
from service.releases.gate.verdict import Verdict
from service.releases.release_store import ReleaseStore
from service.releases.transitions import conclude, record_verdict
from service.runs.leases.lease import Lease
from service.runs.run_store import RunStore, add_event
from service.runs.worker.attempt_folder import open_attempt
from service.runs.worker.child_program import Event, Program, run_program
from service.runs.worker.deletion_sweep import delete_copies
from service.runs.worker.label_check import check_labels
from service.runs.worker.run_recipe import repeat_recipe, starts_from_encoder, write_recipe
from service.runs.worker.snapshot import DatasetWriter, Sizes, take_snapshot, validation_files
from service.segmentation.decode import Limits
from service.segmentation.formats.rgb import ValueRange
from service.segmentation.inference.providers import expected_provider
from service.settings import Settings
from service.storage.tables import Activation
from service.tracing import span

log = structlog.stdlib.get_logger(__name__)

CHECKPOINT, RESUME_STATE = "model.safetensors", "resume.pt"


class Interrupted(Exception):  # noqa: N818 - no error: the stop was requested
    """The run is stopped; the text is cancelled, lost, stopping or timeout."""


@dataclass(kw_only=True)
class Phases:
    """The phases of a run whose lease this process holds."""

    settings: Settings
    runs: RunStore
    images: ImageStore
    models: ModelStore
    releases: ReleaseStore
    lease: Lease
    interruption: Callable[[], str | None]
    """Returns the reason to stop, or None."""

    def __post_init__(self) -> None:
        self._limits = Limits(max_bytes=self.settings.max_image_bytes, max_pixels=self.settings.max_image_pixels)
        self._folder = self.settings.data_dir.absolute() / "runs" / self.lease.run_id
        self._attempt = self._folder

    def run(self) -> None:
        """Run all phases.

        Raises Interrupted, LeaseLost, or MaskloopError, ProgramError, RecipeError or OSError if a phase failed.
        """
        for name, phase in (
            ("prepare", self._prepare),
            ("train", self._train),
            ("export", self._export),
            ("judge", self._judge),
        ):
            with span(name):
                phase()

    def delete_copies(self) -> None:
        """Delete what an ended run needs no more, among it copies of images that clients may delete."""
        delete_copies(self._folder)

    def _prepare(self) -> None:
        self._enter("prepare")
        # It may still run if its worker hangs, and would share the device with the next one.
        if end_group(self.lease.earlier_program, self.settings.stop_grace_s):
            log.warning("ended the program of an earlier attempt", run_id=self.lease.run_id)
        self._attempt = open_attempt(self._folder, self.lease.fence)
        base = self._base()
        # The first list is taken from the active model.
        self.models.classes.history()
        dataset = self._folder / "dataset"
        if take_snapshot(self.lease):
            # Of an earlier snapshot, which a former version took.
            shutil.rmtree(dataset, ignore_errors=True)
        classes = self._classes()
        check_guard_classes(self.settings, classes)
        writer = DatasetWriter(
            run_id=self.lease.run_id,
            runs=self.runs,
            images=self.images,
            history=self.models.classes.history(),
            classes=classes,
            limits=self._limits,
            check=self._check,
        )
        sizes = writer.write(dataset, base.manifest.version)
        self.lease.record({}, "dataset", images=asdict(sizes))
        recipe = self._folder / "recipe.toml"
        if not recipe.exists():
            check_labels(dataset, classes, self._check)
            self._check()
            self._write_recipe(recipe, base, sizes)
        # A bundle without a checkpoint, or a recipe with another network, also starts from the encoder.
        from_encoder = starts_from_encoder(recipe)
        self.lease.record({"from_encoder": from_encoder}, "recipe", from_encoder=from_encoder)

    def _write_recipe(self, target: Path, base: Bundle, sizes: Sizes) -> None:
        run, dataset = self.runs.get(self.lease.run_id), self._folder / "dataset"
        if run.repeats is not None:
            source = self._folder.parent / run.repeats / target.name
            repeat_recipe(target, source=source, base=base, dataset=dataset, sizes=sizes)
            return
        template, from_encoder = self.settings.recipe_path, run.from_encoder
        write_recipe(
            target,
            template=template,
            base=base,
            dataset=dataset,
            sizes=sizes,
            from_encoder=from_encoder,
            known_as=self.models.classes.names_in(base.manifest, self._classes()),
        )

    def _train(self) -> None:
        self._enter("train")
        finished, out = self._folder / "train", self._attempt / "train"
        if (finished / CHECKPOINT).exists():
            return
        if not (out / CHECKPOINT).exists():
            resume = ["--resume"] if (out / RESUME_STATE).exists() else []
            self._run_program("trainer", "train", str(self._folder / "recipe.toml"), "--out", str(out), *resume)
        out.rename(finished)

    def _export(self) -> None:
        self._enter("export")
        finished, out = self._folder / "bundle", self._attempt / "bundle"
        if (finished / MANIFEST).exists():
            return
        if not (out / MANIFEST).exists():
            checkpoint, parent = self._folder / "train" / CHECKPOINT, self._base().manifest
            about = ["--parent", parent.version, "--name", parent.name]
            self._run_program("exporter", "export", str(checkpoint), "--out", str(out), *about, *self._precisions())
        out.rename(finished)

    def _precisions(self) -> list[str]:
        """Also export a graph that is fast here; the exporter drops it if it loses too much accuracy."""
        precision = choose_precision(self.settings.precision, expected_provider(self.settings.device))
        if precision == "fp32":
            return []
        return ["--precision", f"fp32,{precision}", "--data", str(self._folder / "dataset")]

    def _judge(self) -> None:
        self._enter("judge")
        run = self.runs.get(self.lease.run_id)
        if self.releases.of_run(run.id) is not None:
            # An earlier attempt finished this phase; the candidate may be active.
            return
        bundle, classes = self._folder / "bundle", self._classes()
        version = self.models.import_folder(
            bundle, state="candidate", run_id=run.id, classes_version=classes.version
        ).version
        self.lease.record({"candidate_version": version}, "candidate", version=version)
        candidate, activation = self.models.bundle(version), self.models.activation()
        active = self.models.bundle(activation.version) if activation else None
        judged = self._judged(classes, active)
        best = find_best(self.models, candidate, active, judged.ids_of) if active else None
        uses = self.runs.count_judged()
        verdict = judge(candidate, active, best, self._samples, self.settings, judged=judged, uses=uses)
        self._store(version, verdict, activation)

    def _store(self, version: str, verdict: Verdict, against: Activation | None) -> None:
        """Write the verdict to the models, to the run and as a release, and act on it, in one fenced transaction.

        So a run that is cancelled or dies leaves no verdict without its consequence, and a worker that lost the lease
        changes nothing.
        """
        report, scores = asdict(verdict), (verdict.candidate, verdict.active, verdict.best)
        before, after = verdict.miou
        values = {"report": report, "miou_before": before, "miou_after": after}
        with self.lease.fenced(values) as session:
            self.models.record_miou(session, {score.version: score.miou for score in scores if score is not None})
            release = record_verdict(session, self.lease.run_id, version, report, against)
            conclude(session, release, self.settings)
            sentence = names_only(verdict.sentence)
            add_event(session, self.lease.run_id, "verdict", outcome=verdict.outcome, sentence=sentence)

    def _classes(self) -> ClassList:
        """The list for which the run trains; the first one for a run of a former version of the service."""
        return self.models.classes.history().version(self.runs.get(self.lease.run_id).classes_version or 1)

    def _base(self) -> Bundle:
        version = self.runs.get(self.lease.run_id).base_version
        assert version is not None  # noqa: S101 - the policy writes it
        return self.models.bundle(version)

    def _judged(self, classes: ClassList, active: Bundle | None) -> Judged:
        return Judged(
            classes=classes,
            ids_of=lambda manifest: self.models.classes.ids_in(manifest, classes),
            active_is_starter=active is not None and self.models.is_starter(active.manifest.version),
        )

    def _samples(self, ranges: Collection[ValueRange | None]) -> Iterator[Sample]:
        files = validation_files(self._folder / "dataset", self.runs.labels(self.lease.run_id))
        for sample in read_samples(files, self._classes(), ranges, self._limits):
            self._check()
            yield sample

    def _enter(self, phase: str) -> None:
        self._check()
        self.lease.phase(phase)

    def _check(self) -> None:
        why = self.interruption()
        if why is not None:
            raise Interrupted(why)

    def _run_program(self, module: str, *arguments: str) -> None:
        program = Program(
            command=[self.settings.python, "-m", module, *arguments],
            log_file=self._folder / "log.txt",
            on_event=self._on_event,
            interruption=self.interruption,
            grace_s=self.settings.stop_grace_s,
            stall_s=self.settings.stall_s,
            on_start=self._on_start,
        )
        if run_program(program) is None:
            raise Interrupted(self.interruption() or "stopping")

    def _on_start(self, pid: int) -> None:
        with self.lease.fenced({"program": process_identity(pid)}):
            pass

    def _on_event(self, event: Event) -> None:
        kind = event["event"]
        if kind == "progress":
            self.lease.progress(event)
        elif kind in ("start", "saved"):
            self.lease.saved(event)
        else:
            # A finished program is progress.
            self.lease.record({"attempts": 1} if kind == "done" else {}, **event)
