"""The end of a run: the final evaluation, the checkpoints and the report."""

import json

from trainer import checkpoint
from trainer.atomic_write import atomic_write
from trainer.evaluation.metrics import Scores
from trainer.report.write import write_report
from trainer.stop_signals import Stopped, StopRequest
from trainer.training_state import RunContext, TrainingState
from trainer.validation import BEST, save_checkpoint, validation_scores

KEPT, LAST, STUDENT = "model.safetensors", "last.safetensors", "student.safetensors"


def finalize(state: TrainingState, context: RunContext, stop: StopRequest) -> Scores | None:
    """Evaluate the last weights and write the run's checkpoints.

    model.safetensors, the teacher's best or last weights (train.keep), is written after the others: it marks a finished
    run. last.safetensors is written if the best weights are older, student.safetensors if there is a teacher.

    Returns the scores of the kept weights, None without a validation split. Raises Stopped after a signal.
    """
    main = context.processes.main
    last = _evaluate_last(state, context, stop)
    kept = last
    if last and state.best.get("miou", -1.0) > last.miou_truth_classes:
        if main:
            save_checkpoint(context.out / LAST, state.teacher, context, last)
        checkpoint.load_weights(context.out / BEST, state.teacher)
        kept = validation_scores(state.teacher, context, full=True)
        context.events.emit("evaluation", step=state.best["step"], **kept.as_dict())
    if main:
        if kept:
            table = kept.as_full_dict() | {"split": context.recipe.data.val}
            with atomic_write(context.out / "evaluation.json") as file:
                file.write_text(json.dumps(table), encoding="utf-8")
        save_checkpoint(context.out / KEPT, state.teacher, context, kept)
        (context.out / BEST).unlink(missing_ok=True)
        (context.out / "resume.pt").unlink(missing_ok=True)
        if context.recipe.train.report:
            # Last, because `python -m trainer report` can repeat it.
            write_report(context.out, recipe=context.recipe, data=context.data, model=state.teacher, scores=kept)
    return kept


def _evaluate_last(state: TrainingState, context: RunContext, stop: StopRequest) -> Scores | None:
    has_teacher = context.recipe.train.ema_decay > 0
    teacher = validation_scores(state.teacher, context, full=True) if context.data.val else None
    _raise_if_stopped(stop, context)
    student = validation_scores(state.student, context, full=False) if teacher and has_teacher else teacher
    if teacher and student:
        context.events.emit("evaluation", step=state.step, **teacher.as_dict(), student=student.as_brief_dict())
    _raise_if_stopped(stop, context)
    if context.processes.main and has_teacher:
        save_checkpoint(context.out / STUDENT, state.student, context, student)
    return teacher


def _raise_if_stopped(stop: StopRequest, context: RunContext) -> None:
    if context.processes.any(flag=stop.requested):
        raise Stopped("stopped in the last evaluation; --resume continues from there")
