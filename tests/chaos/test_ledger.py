"""The ledger knows what is possible after answers, and after none."""

from __future__ import annotations

import pytest

from tests.chaos.ledger import ABSENT, UNLABELLED, Ledger, Operation, Outcome

UPLOAD, DELETE = Operation("upload"), Operation("delete")
FIRST, SECOND = Operation("label", "first"), Operation("label", "second")


def ledger_after(*operations: tuple[Operation, Outcome]) -> Ledger:
    ledger = Ledger()
    for operation, outcome in operations:
        ledger.begin("a", operation)
        ledger.end("a", operation, outcome)
    return ledger


@pytest.mark.parametrize(
    ("operations", "possible"),
    [
        ([(UPLOAD, "done")], {UNLABELLED}),
        ([(UPLOAD, "unknown")], {ABSENT, UNLABELLED}),
        ([(UPLOAD, "unknown"), (UPLOAD, "done")], {UNLABELLED}),
        ([(UPLOAD, "done"), (FIRST, "unknown")], {UNLABELLED, "first"}),
        ([(UPLOAD, "done"), (FIRST, "done"), (UPLOAD, "done")], {"first"}),
        ([(UPLOAD, "done"), (FIRST, "unknown"), (SECOND, "done")], {"second"}),
        # The answer tells that the upload had been done.
        ([(UPLOAD, "unknown"), (FIRST, "done")], {"first"}),
        ([(UPLOAD, "unknown"), (FIRST, "missing")], {ABSENT}),
        ([(UPLOAD, "done"), (DELETE, "unknown")], {UNLABELLED, ABSENT}),
        ([(UPLOAD, "done"), (DELETE, "unknown"), (DELETE, "missing")], {ABSENT}),
        ([(UPLOAD, "done"), (DELETE, "done"), (UPLOAD, "done")], {UNLABELLED}),
    ],
)
def test_answers_reduce_the_possible_states(operations: list[tuple[Operation, Outcome]], possible: set[str]) -> None:
    ledger = ledger_after(*operations)
    for state in (ABSENT, UNLABELLED, "first", "second"):
        seen = ledger_after(*operations)
        seen.observe("a", state)
        assert bool(seen.violations) == (state not in possible), (state, seen.violations)
    assert ledger.violations == []


def test_lost_image_is_reported_once_by_404_or_by_sight() -> None:
    ledger = ledger_after((UPLOAD, "done"), (DELETE, "missing"))
    ledger.observe("a", ABSENT)
    assert ledger.violations == ["image a: delete was answered with 404, expected unlabelled"]
    ledger = ledger_after((UPLOAD, "done"))
    ledger.observe("a", ABSENT)
    ledger.observe("b", UNLABELLED)
    assert ledger.violations == ["image a: its state is absent, expected unlabelled", "image b: nobody has sent it"]


def test_image_that_was_touched_during_a_listing_may_be_missing_in_it() -> None:
    ledger = ledger_after((UPLOAD, "done"))
    kept = ledger.kept()
    assert ledger.unchanged(kept) == {"a"}
    ledger.begin("a", DELETE)
    assert ledger.unchanged(kept) == frozenset()
    assert ledger.kept() == {}
