"""The end of a run: which weights are kept, how good they are, and the report."""

import json

from trainer import checkpoint
from trainer.evaluation.audit import audit_pseudo_labels
from trainer.evaluation.metrics import Scores
from trainer.job import Job
from trainer.judge import BEST, save_weights, scores_of
from trainer.replacing import replacing
from trainer.report.history import read_events
from trainer.report.write import REPORT, write_report
from trainer.run import Run
from trainer.stopping import Stop, Stopped

KEPT, LAST, STUDENT = "model.safetensors", "last.safetensors", "student.safetensors"


def finish(run: Run, job: Job, stop: Stop) -> Scores | None:
    """Judge the last weights, and write the run's checkpoints.

    model.safetensors holds the teacher's best or last weights, as the recipe says, and is written last: a folder that
    has it is finished. last.safetensors is there where it is another; student.safetensors where there is a teacher.

    Returns:
        The scores of what is kept; None when the recipe judges on nothing.

    Raises:
        Stopped: the run was asked to stop meanwhile; the state of its last step is saved.
    """
    ema, main = job.recipe.train.ema_decay > 0, job.processes.main
    last = scores_of(run.teacher, job, full=True) if job.data.val else None
    _leave_if_asked(stop, job)
    student = scores_of(run.student, job, full=False) if last and ema else last
    if last and student:
        job.events.emit("evaluation", step=run.step, **last.as_dict(), student={"miou": student.miou})
    _leave_if_asked(stop, job)
    if main and ema:
        save_weights(job.out / STUDENT, run.student, job, student)
    kept = last
    if last and run.best.get("miou", -1.0) > last.miou:
        if main:
            save_weights(job.out / LAST, run.teacher, job, last)
        checkpoint.load_weights(job.out / BEST, run.teacher, job.data.dataset.taxonomy)
        kept = scores_of(run.teacher, job, full=True)
        job.events.emit("evaluation", step=run.best["step"], **kept.as_dict())
    if main:
        if kept:
            table = kept.as_full_dict() | {"split": job.recipe.data.val}
            with replacing(job.out / "evaluation.json") as file:
                file.write_text(json.dumps(table), encoding="utf-8")
        save_weights(job.out / KEPT, run.teacher, job, kept)
        (job.out / BEST).unlink(missing_ok=True)
        (job.out / "resume.pt").unlink(missing_ok=True)
        if job.recipe.train.report:
            _report(run, job, kept)
    return kept


def _leave_if_asked(stop: Stop, job: Job) -> None:
    if job.processes.anywhere(flag=stop.asked):
        raise Stopped("stopped in the last evaluation; --resume goes on from there")


def _report(run: Run, job: Job, kept: Scores | None) -> None:
    """Written last: `python -m trainer report` can do it again, while nothing else brings back the weights."""
    write_report(
        job.out / REPORT,
        recipe=job.recipe,
        data=job.data,
        model=run.teacher,
        scores=kept,
        events=read_events(job.out / "events.jsonl"),
        audit=audit_pseudo_labels(run.teacher, job.recipe, job.data) if job.data.unlabelled else None,
    )
