"""Phases of a run: prepare, train, export, judge, promote.

Each phase stores its complete result in the folder or the row of the run, and is skipped if the result exists. So a run
whose
worker died continues from the last state that the trainer saved, and a duplicate message is harmless.

    DATA/runs/ID/dataset/      snapshot of the pool              (prepare)
    DATA/runs/ID/recipe.toml   recipe of the trainer             (prepare)
    DATA/runs/ID/train/        output of the trainer             (train)
    DATA/runs/ID/bundle/       candidate                         (export)
    DATA/runs/ID/log.txt       command lines and stderr of both programs
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import structlog

from service.images.image_store import ImageStore
from service.models.bundle import MANIFEST, Bundle
from service.models.model_store import ModelStore
from service.models.precision import suited
from service.runs.child_program import Event, Program, run_program
from service.runs.gate import Pair, compare, read_pairs
from service.runs.lease import Lease
from service.runs.run_recipe import write_recipe
from service.runs.run_store import RunStore
from service.runs.snapshot import build_dataset
from service.segmentation.decode import Limits
from service.segmentation.inference.providers import expected_provider
from service.settings import Settings
from service.tracing import span

log = structlog.stdlib.get_logger(__name__)

CHECKPOINT, RESUME_STATE = "model.safetensors", "resume.pt"


class Interrupted(Exception):  # noqa: N818 - no error: the stop was requested
    """The run is stopped; the text is the reason: cancelled, lost, stopping or timeout."""


class Phases:
    """The phases of a run whose lease this process holds. `interruption` returns the reason to stop now, or None."""

    def __init__(
        self,
        *,
        settings: Settings,
        runs: RunStore,
        images: ImageStore,
        models: ModelStore,
        lease: Lease,
        interruption: Callable[[], str | None],
    ) -> None:
        self._settings = settings
        self._runs = runs
        self._images = images
        self._models = models
        self._lease = lease
        self._interruption = interruption
        self._limits = Limits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels)
        self._folder = settings.data_dir.absolute() / "runs" / lease.run_id

    def run(self) -> bool:
        """Run all phases; return whether the candidate was promoted.

        Raises:
            Interrupted: The run must stop.
            LeaseLost: Another worker has taken over the run.
            MaskloopError, ProgramError, RecipeError, OSError: A phase failed.
        """
        for name, phase in (("prepare", self._prepare), ("train", self._train), ("export", self._export)):
            with span(name):
                phase()
        with span("judge"):
            accepted = self._judge()
        if accepted:
            with span("promote"):
                self._promote()
        return accepted

    def delete_copies(self) -> None:
        """Delete the snapshot, which may hold images that clients delete, and the imported bundle of an ended run."""
        for name in ("dataset", "bundle"):
            shutil.rmtree(self._folder / name, ignore_errors=True)

    def _prepare(self) -> None:
        self._enter("prepare")
        self._folder.mkdir(parents=True, exist_ok=True)
        base = self._base()
        dataset = self._folder / "dataset"
        sizes = build_dataset(
            dataset, self._lease.run_id, base.manifest, runs=self._runs, images=self._images, limits=self._limits
        )
        recipe = self._folder / "recipe.toml"
        if not recipe.exists():
            write_recipe(recipe, template=self._settings.recipe_path, base=base, dataset=dataset, sizes=sizes)

    def _train(self) -> None:
        self._enter("train")
        out = self._folder / "train"
        if (out / CHECKPOINT).exists():
            return
        resume = ["--resume"] if (out / RESUME_STATE).exists() else []
        self._run_program("trainer", "train", str(self._folder / "recipe.toml"), "--out", str(out), *resume)

    def _export(self) -> None:
        self._enter("export")
        bundle = self._folder / "bundle"
        if (bundle / MANIFEST).exists():
            return
        checkpoint, parent = self._folder / "train" / CHECKPOINT, self._base().manifest
        about = ["--parent", parent.version, "--name", parent.name]
        self._run_program("exporter", "export", str(checkpoint), "--out", str(bundle), *about, *self._precisions())

    def _precisions(self) -> list[str]:
        """Also export a graph that is fast on this machine; the exporter drops it if it loses too much accuracy."""
        precision = suited(self._settings.precision, expected_provider(self._settings.device))
        if precision == "fp32":
            return []
        return ["--precision", f"fp32,{precision}", "--data", str(self._folder / "dataset")]

    def _judge(self) -> bool:
        self._enter("judge")
        run = self._runs.get(self._lease.run_id)
        if run.report is not None:
            # An earlier attempt finished this phase; the candidate may be active by now.
            return bool(run.report["accepted"])
        version = self._models.import_folder(self._folder / "bundle", state="candidate", run_id=run.id).version
        self._lease.record({"candidate_version": version}, "candidate", version=version)
        activated = self._models.activated()
        active = self._models.bundle(activated.version) if activated else None
        verdict = compare(self._models.bundle(version), active, self._pairs, self._settings)
        before = verdict.active.miou if verdict.active else None
        after = verdict.candidate.miou if verdict.candidate else None
        values = {"report": verdict.as_dict(), "miou_before": before, "miou_after": after}
        if verdict.accepted:
            self._models.mark(version, "candidate", miou=after)
        else:
            self._models.mark(version, "rejected", error=verdict.reason, miou=after)
        self._lease.record(values, "verdict", accepted=verdict.accepted, reason=verdict.reason)
        return verdict.accepted

    def _promote(self) -> None:
        # This write is fenced: a worker that lost the lease stops here.
        self._enter("promote")
        version = self._runs.get(self._lease.run_id).candidate_version
        activated = self._models.activated()
        if version is not None and (activated is None or activated.version != version):
            self._models.activate(version, f"run {self._lease.run_id}")

    def _base(self) -> Bundle:
        version = self._runs.get(self._lease.run_id).base_version
        assert version is not None  # noqa: S101 - the policy writes it
        return self._models.bundle(version)

    def _pairs(self, bundle: Bundle) -> Iterator[Pair]:
        ids = self._runs.images(self._lease.run_id, "val")
        for pair in read_pairs(self._images, ids, bundle.manifest, self._limits):
            self._check()
            yield pair

    def _enter(self, phase: str) -> None:
        self._check()
        self._lease.phase(phase)

    def _check(self) -> None:
        why = self._interruption()
        if why is not None:
            raise Interrupted(why)

    def _run_program(self, module: str, *arguments: str) -> None:
        program = Program(
            command=[self._settings.python, "-m", module, *arguments],
            log_file=self._folder / "log.txt",
            on_event=self._on_event,
            interruption=self._interruption,
            grace_s=self._settings.stop_grace_s,
        )
        if run_program(program) is None:
            raise Interrupted(self._interruption() or "stopping")

    def _on_event(self, event: Event) -> None:
        if event["event"] == "progress":
            self._lease.progress(event)
        else:
            self._lease.record({}, **event)
