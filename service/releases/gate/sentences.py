"""Explain a comparison in a sentence."""

from __future__ import annotations

from collections.abc import Collection

from service.releases.gate.verdict import Comparison, Role, Rule

ROLES: dict[Role, str] = {"active": "the active model", "best": "the best version so far"}


def describe(comparison: Comparison, rule: Rule, *, images: int, all_classes: int) -> str:
    """Describe the difference, its limits and what follows."""
    classes = comparison.classes.values()
    ours = sum(each.candidate_iou for each in classes) / len(classes)
    theirs = sum(each.other_iou for each in classes) / len(classes)
    units = comparison.difference.units
    groups = "" if units == images else f", {units} independent"
    return (
        f"mIoU {ours:.4f} against {theirs:.4f} of {ROLES[comparison.role]} over {len(classes)} of {all_classes} "
        f"classes, on {counted(images, 'validation image')}{groups}: {_limits(comparison, rule)}"
        f"{_conclusion(comparison, rule)}."
    )


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 image", "2 images"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def quoted(names: Collection[str]) -> str:
    """Names in quotation marks, with commas."""
    return ", ".join(repr(name) for name in names)


def _limits(comparison: Comparison, rule: Rule) -> str:
    found = comparison.difference
    if found.lower is None or found.upper is None:
        return ""
    confidence = f"{100 * (1 - rule.level):g} % confidence each"
    return f"{found.value:+.4f}, above {found.lower:+.4f} and below {found.upper:+.4f} with {confidence}; "


def _conclusion(comparison: Comparison, rule: Rule) -> str:
    margin = f"{rule.margin:g}"
    worse = [name for name, each in comparison.classes.items() if each.worse]
    if worse:
        return f"the candidate loses more than {margin} in the guarded classes {quoted(worse)}"
    if comparison.outcome == "reject":
        return f"the candidate is worse by more than {margin}"
    if comparison.outcome == "undecided":
        return f"this is not enough evidence. {_remedy(comparison)}"
    return "the candidate is better" if rule.mode == "better" else f"the candidate is not worse by {margin} or more"


def _remedy(comparison: Comparison) -> str:
    found, needed = comparison.difference, comparison.units_needed
    if found.standard_error is None:
        return "One image, or one group of images, tells nothing about the spread: label more for `val`"
    if needed is None:
        return "If the difference stays the same, no practicable number of labels will decide"
    more = counted(needed - found.units, "more independent validation image")
    return f"If the difference stays the same, about {more} will decide: label them for `val`"
