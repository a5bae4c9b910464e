"""Judge a candidate: score it, the active model and the best version so far on the same images, and decide."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial

import structlog

from service.errors import BundleInvalid, ClassUnknown, NothingCompared
from service.models.bundle import Bundle, Manifest
from service.models.loading import LoadedModel, load_model
from service.releases.gate.class_counts import Indices
from service.releases.gate.comparison import compare_counts
from service.releases.gate.scoring import InferenceFailed, Measurement, measure
from service.releases.gate.sentences import quoted
from service.releases.gate.validation_samples import Sample
from service.releases.gate.verdict import Comparison, Outcome, Role, Rule, Verdict
from service.segmentation.formats.rgb import ValueRange
from service.settings import Settings

log = structlog.stdlib.get_logger(__name__)

Samples = Callable[[Manifest, Collection[ValueRange | None]], Iterable[Sample]]
"""Yields the validation images for the classes of a manifest, decoded for each of some value ranges."""


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
    uses: int = 0,
) -> Verdict:
    """Compare a candidate with the active model and with another version, the best so far, on the same images.

    `uses` is the number of earlier candidates that were judged on them, for the report.

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
    other_classes = active is not None and class_names(active) != class_names(candidate)
    opponents = _load_opponents(None if other_classes else active, best, settings)
    manifest = candidate.manifest
    models = [loaded, *opponents.values()]
    ranges = {model.value_range for model in models}
    try:
        measurements, unit_I = measure(models, samples(manifest, ranges), manifest.ignore_index)
    except InferenceFailed as error:
        if error.version == manifest.version:
            return unusable(sentence=str(error))
        if "best" in opponents and error.version == opponents["best"].version:
            log.warning("best version so far is not compared", version=error.version, reason=str(error))
            return judge(candidate, active, None, samples, settings, uses=uses)
        raise BundleInvalid(f"{error} Activate another version, then start a new run.") from error
    verdict = _judge_measurements(measurements, list(opponents), unit_I, rule)
    if other_classes and active is not None:
        reason = f"{active.manifest.version} was activated during the run and has other classes: start a new run."
        verdict = replace(verdict, outcome="reject", sentence=reason)
    return replace(verdict, validation_set_uses=uses)


def check_guard_classes(settings: Settings, manifest: Manifest) -> None:
    """Raise ClassUnknown if a guard class of the settings is no class of the model, so that a run fails early."""
    names = [entry.name for entry in manifest.classes]
    if unknown := [name for name in settings.gate_guard_classes if name not in names]:
        raise ClassUnknown(
            f"MASKLOOP_GATE_GUARD_CLASSES has {quoted(unknown)}, and the classes are {quoted(names)}: correct the "
            "setting, and restart the worker."
        )


def class_names(bundle: Bundle) -> list[str]:
    """Names of the classes of a bundle, in the order of their ids."""
    return [entry.name for entry in bundle.manifest.classes]


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


def _judge_measurements(
    measurements: Sequence[Measurement], roles: Sequence[Role], unit_I: Indices, rule: Rule
) -> Verdict:
    ours, *others = measurements
    counts = ours.counts
    pixels = int(counts.truth_IK.sum())
    if pixels == 0:
        raise NothingCompared(
            "No pixel of the validation images has a label, so the candidate was compared with nothing: label some for "
            "validation (PUT /v1/images/ID/mask?split=val), then start a new run."
        )
    names = [entry.name for entry in ours.model.bundle.manifest.classes]
    scores = {role: other.score for role, other in zip(roles, others, strict=True)}
    comparisons = tuple(
        compare_counts(
            counts, other.counts, unit_I, names, _rule_against(role, rule), role=role, version=other.model.version
        )
        for role, other in zip(roles, others, strict=True)
    )
    outcome, sentence = _conclude(comparisons, finds_something=bool(counts.tp_IK.any()))
    by_unit = counts.by_unit(unit_I).truth_IK
    unguarded = _unguarded(comparisons, rule)
    note = (
        " Fewer than 10 independent validation images show these guard classes, so they are not guarded: "
        f"{quoted(unguarded)}."
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
