"""Evaluation within a run: by the teacher, whose weights are the ones that are kept."""

from pathlib import Path

import torch

from trainer import checkpoint
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.metrics import Scores
from trainer.job import Job
from trainer.models.segmenter import Segmenter
from trainer.run import Run
from trainer.run_error import RunError, is_out_of_memory

BEST = "best.safetensors"


def judge(run: Run, job: Job) -> None:
    """Evaluate the teacher on the run's `val` split, and keep its weights if they are the best so far."""
    if not job.data.val:
        return
    found = scores_of(run.teacher, job, full=False)
    job.events.emit("evaluation", step=run.step, **found.as_dict())
    if job.recipe.train.keep == "best" and found.miou > run.best.get("miou", -1.0):
        run.best = {"miou": found.miou, "step": run.step}
        if job.processes.main:
            save_weights(job.out / BEST, run.teacher, job, found)


def scores_of(model: Segmenter, job: Job, *, full: bool) -> Scores:
    """Scores of a network on the run's `val` split, each image judged by one of the processes."""
    try:
        # Photographs differ in size, and each size would be compiled anew.
        with torch.compiler.set_stance("force_eager"):
            return evaluate(
                model,
                job.data.dataset,
                job.data.val,
                inference=job.recipe.inference,
                workers=job.recipe.data.workers,
                shard=(job.processes.rank, job.processes.count),
                total=job.processes.total,
                full=full,
            )
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(
            f"{job.processes.device} has too little memory for a validation image; set inference.window = "
            f"{list(job.recipe.data.crop)}, or a smaller inference.long_side"
        ) from error


def save_weights(path: Path, model: Segmenter, job: Job, found: Scores | None) -> None:
    """Write a checkpoint of the run, with what is known of it."""
    metrics = found.as_dict() | {"split": job.recipe.data.val} if found else {}
    checkpoint.save(
        path,
        model,
        job.data.dataset.taxonomy,
        metrics=metrics,
        recipe=job.recipe,
        data_fingerprint=job.data.fingerprint,
    )
