"""Judge a candidate: score it, the active model and the best version so far on the same images, and decide."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial

import structlog

from service.classes.class_list import ClassList
from service.errors import BundleInvalid, ClassUnknown, NothingCompared
from service.models.bundle import Bundle
from service.models.loading import LoadedModel, load_model
from service.releases.gate.class_scopes import Judged, ModelIds
from service.releases.gate.comparison import compare_counts
from service.releases.gate.other_classes import judge_other_classes
from service.releases.gate.scoring import InferenceFailed, Measurement, measure
from service.releases.gate.sentences import quoted
from service.releases.gate.statistics.class_counts import Indices
from service.releases.gate.validation_samples import Sample
from service.releases.gate.verdict import Comparison, Outcome, Role, Rule, Verdict
from service.segmentation.formats.rgb import ValueRange
from service.settings import Settings

log = structlog.stdlib.get_logger(__name__)

Samples = Callable[[Collection[ValueRange | None]], Iterable[Sample]]
"""Yields the validation images with their labels, decoded for each of some value ranges."""


def gate_rule(settings: Settings) -> Rule:
    """Rule of the settings."""
    return Rule(
        margin=settings.gate_margin_miou,
        level=settings.gate_level,
        mode=settings.gate_mode,
        guard_classes=settings.gate_guard_classes,
    )


def judge(
    candidate: Bundle,
    active: Bundle | None,
    best: Bundle | None,
    samples: Samples,
    settings: Settings,
    *,
    judged: Judged,
    uses: int = 0,
) -> Verdict:
    """Compare a candidate with the active model and with another version, the best so far, on the same images.

    Each comparison is over the classes that both models have. `uses` is the number of earlier candidates that were
    judged on the images, for the report.

    Raises:
        BundleInvalid: The active bundle is broken, or fails on its probe or on a validation image.
        NothingCompared: No pixel of the images has a label.
        Unavailable: The machine cannot load a model.
    """
    rule = gate_rule(settings)
    unusable = partial(Verdict, outcome="reject", rule=rule, validation_set_uses=uses)
    try:
        loaded = load_model(candidate, settings)
    except BundleInvalid as error:
        return unusable(sentence=str(error))
    opponents = _load_opponents(active, best, settings)
    measurements = _measurements(loaded, list(opponents.values()), judged)
    try:
        unit_I = measure(measurements, samples({each.model.value_range for each in measurements}))
    except InferenceFailed as error:
        if error.version == loaded.version:
            return unusable(sentence=str(error))
        if "best" in opponents and error.version == opponents["best"].version:
            log.warning("best version so far is not compared", version=error.version, reason=str(error))
            return judge(candidate, active, None, samples, settings, judged=judged, uses=uses)
        raise BundleInvalid(f"{error} Activate another version, then start a new run.") from error
    verdict = _judge_measurements(measurements, list(opponents), unit_I, rule)
    if active is not None:
        verdict = judge_other_classes(verdict, measurements[0], measurements[1], unit_I, judged)
    return replace(verdict, validation_set_uses=uses)


def check_guard_classes(settings: Settings, classes: ClassList) -> None:
    """Raise ClassUnknown if a guard class of the settings is no class of the list, so that a run fails early."""
    names = classes.names
    if unknown := [name for name in settings.gate_guard_classes if name not in names]:
        raise ClassUnknown(
            f"MASKLOOP_GATE_GUARD_CLASSES has {quoted(unknown)}, and the classes are {quoted(names)}: correct the "
            "setting, and restart the worker."
        )


def _load_opponents(active: Bundle | None, best: Bundle | None, settings: Settings) -> dict[Role, LoadedModel]:
    opponents: dict[Role, LoadedModel] = {}
    if active is not None:
        opponents["active"] = load_model(active, settings)
    if best is not None and active is not None:
        try:
            opponents["best"] = load_model(best, settings)
        except BundleInvalid as error:
            log.warning("best version so far is not compared", version=best.manifest.version, reason=str(error))
    return opponents


def _measurements(candidate: LoadedModel, opponents: Sequence[LoadedModel], judged: Judged) -> list[Measurement]:
    """The candidate counts all its classes, and those that it has in common with each opponent."""
    classes = judged.classes
    ids = [ModelIds(tuple(judged.ids_of(model.bundle.manifest))) for model in (candidate, *opponents)]
    own_K, *theirs = [each.scope(classes) for each in ids]
    common = [own_K & scope_K for scope_K in theirs]
    first = Measurement(candidate, classes, ids[0], [own_K, *common])
    others = [
        Measurement(model, classes, its_ids, [scope_K])
        for model, its_ids, scope_K in zip(opponents, ids[1:], common, strict=True)
    ]
    return [first, *others]


def _judge_measurements(
    measurements: Sequence[Measurement], roles: Sequence[Role], unit_I: Indices, rule: Rule
) -> Verdict:
    ours, *others = measurements
    counts = ours.counts()
    pixels = int(counts.truth_IK.sum())
    if pixels == 0:
        raise NothingCompared(
            "No pixel of the validation images has a label, so the candidate was compared with nothing: label some for "
            "validation (PUT /v1/images/ID/mask?split=val), then start a new run."
        )
    names = ours.classes.names
    scores = {role: other.score for role, other in zip(roles, others, strict=True)}
    comparisons = tuple(
        compare_counts(
            common, other.counts(), unit_I, names, _rule_against(role, rule), role=role, version=other.model.version
        )
        for number, (role, other) in enumerate(zip(roles, others, strict=True), start=1)
        if (common := ours.counts(number)).truth_IK.any()
    )
    outcome, sentence = _conclude(comparisons, finds_something=bool(counts.tp_IK.any()))
    by_unit = counts.by_unit(unit_I).truth_IK
    unguarded = _unguarded(comparisons, rule)
    note = (
        " These guard classes are not guarded, since fewer than 10 independent validation images show them, or the "
        f"other model lacks them: {quoted(unguarded)}."
    )
    return Verdict(
        outcome=outcome,
        sentence=sentence + (note if unguarded else ""),
        rule=rule,
        images=len(unit_I),
        units=int(by_unit.any(axis=1).sum()),
        pixels=pixels,
        unguarded=unguarded,
        candidate=ours.score,
        active=scores.get("active"),
        best=scores.get("best"),
        comparisons=comparisons,
    )


def _rule_against(role: Role, rule: Rule) -> Rule:
    """A candidate need not improve on the best version: it must not lose a little with each promotion."""
    return rule if role == "active" else replace(rule, mode="not_worse")


def _conclude(comparisons: Sequence[Comparison], *, finds_something: bool) -> tuple[Outcome, str]:
    outcomes = {each.outcome for each in comparisons}
    decided: list[Outcome] = [each for each in ("reject", "undecided") if each in outcomes]
    outcome: Outcome = decided[0] if decided else "promote"
    if outcome != "reject" and not finds_something:
        # No worse than a model that finds nothing either.
        return "reject", "The candidate finds no labelled pixel of the validation images."
    sentences = [each.sentence for each in comparisons if each.outcome == outcome]
    return outcome, " ".join(sentences) or "No model was active."


def _unguarded(comparisons: Sequence[Comparison], rule: Rule) -> tuple[str, ...]:
    """Guard classes that were not tested; those that no label shows are not in the comparison at all."""
    guarded = {name for each in comparisons for name, found in each.classes.items() if found.guarded}
    return tuple(name for name in rule.guard_classes if comparisons and name not in guarded)
