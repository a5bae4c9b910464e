"""Complete a verdict if the active model has other classes than the candidate."""

# K classes of the list

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from service.releases.gate.class_scopes import Judged
from service.releases.gate.scoring import Measurement
from service.releases.gate.sentences import counted, quoted
from service.releases.gate.statistics.class_counts import Indices
from service.releases.gate.statistics.new_classes import NewClass, judge_new
from service.releases.gate.verdict import Verdict


def judge_other_classes(
    verdict: Verdict, candidate: Measurement, active: Measurement, unit_I: Indices, judged: Judged
) -> Verdict:
    """Judge the classes that the active model lacks, and leave the first model of a class list to a person.

    A new class that is not learnt makes a promotion undecided. Nothing changes if both have the same classes.
    """
    own_K, common_K = candidate.scopes[0], candidate.scopes[1]
    new = np.flatnonzero(own_K & ~common_K).tolist()
    by_unit = candidate.counts().by_unit(unit_I)
    found = judge_new(by_unit, judged.classes.names, new, verdict.rule.level)
    verdict = replace(verdict, new_classes=found, same_ids=candidate.ids.ids == active.ids.ids)
    if verdict.outcome == "reject":
        return verdict
    why = _why_person(verdict, active, judged, differs=bool(new) or None in active.ids.ids)
    if why is not None:
        return replace(verdict, outcome="undecided", sentence=f"{why}{_describe(found)}", needs_person=True)
    not_learnt = [name for name, each in found.items() if each.not_learnt]
    outcome = "undecided" if not_learnt else verdict.outcome
    return replace(verdict, outcome=outcome, sentence=f"{verdict.sentence}{_describe(found)}")


def _why_person(verdict: Verdict, active: Measurement, judged: Judged, *, differs: bool) -> str | None:
    version = active.model.version
    if not active.scopes[0].any():
        return f"This is the first model of the class list: {version}, which is active, has none of its classes."
    if judged.active_is_starter and differs:
        return f"This is the first model of the class list: {version}, which is active, is the starter model."
    if not any(each.role == "active" for each in verdict.comparisons):
        names = [name for name, has in zip(judged.classes.names, active.scopes[0], strict=True) if has]
        return f"No validation image shows a class that {version}, which is active, has too ({quoted(names)})."
    return None


def _describe(found: Mapping[str, NewClass]) -> str:
    """Sentences about the new classes, each after a space."""
    learnt = [f"{name!r} {each.iou:.4f} on {counted(each.units, 'image')}" for name, each in found.items() if each.iou]
    missed = [name for name, each in found.items() if each.not_learnt]
    unknown = [name for name, each in found.items() if not each.units]
    text = f" IoU of new classes: {', '.join(learnt)}." if learnt else ""
    if missed:
        images = ", ".join(f"{name!r} on {found[name].found_units} of {found[name].units}" for name in missed)
        text += (
            f" New classes are not learnt, found on fewer than half of the validation images that show them: {images}. "
            "Label more of them for training."
        )
    if unknown:
        text += f" No validation image shows the new classes {quoted(unknown)}, so they were not judged: label some."
    return text
