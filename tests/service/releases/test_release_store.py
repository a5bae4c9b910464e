"""What becomes of a judged candidate: by the service, by people, and by both at once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from service.errors import ModelNotServable, ReasonMissing, ReleaseDecided, ReleaseNotFound
from service.releases.transitions import conclude, record_verdict, withdraw
from service.releases.watch.traffic_counters import Counts, write_counts
from service.settings import Settings
from service.state import State
from service.storage.tables import Activation, Release, Run
from tests.service.runs.conftest import BAD, GOOD
from tests.service.tiny_bundle import write_bundle

THIRD = "20260103T000000-third000"


@pytest.fixture
def judged(loop: State, good: Path, tmp_path: Path) -> Callable[..., int]:
    """Return a function that judges GOOD against an activation, by default the newest; returns the release's id."""
    loop.models.import_folder(good, state="candidate")
    loop.models.import_folder(write_bundle(tmp_path / "third", version=THIRD))

    def judge(outcome: str = "promote", *, version: str = GOOD, run: int = 1, against: Activation | None = None) -> int:
        verdict = {"outcome": outcome, "sentence": f"The gate says {outcome}."}
        with loop.database.write() as session:
            session.add(Run(id=f"r{run}", number=run, status="judged", reason="manual"))
            session.flush()
            return record_verdict(session, f"r{run}", version, verdict, against or loop.models.activation()).id

    return judge


def act(loop: State, release_id: int, **settings: Any) -> Release:
    """Let the service act on the verdict."""
    with loop.database.write() as session:
        changed: Settings = loop.settings.model_copy(update=settings)
        conclude(session, session.get_one(Release, release_id), changed)
    return loop.releases.get(release_id)


def activations(loop: State) -> list[str]:
    with loop.database.read() as session:
        return list(session.scalars(select(Activation.version).order_by(Activation.id)))


def test_promoted_candidate_serves(loop: State, judged: Callable[..., int]) -> None:
    release = act(loop, judged())
    assert (release.state, release.reason, release.decided_by) == ("serving", "The gate says promote.", None)
    activation = loop.models.activation()
    assert activation is not None
    assert (activation.id, activation.version, activation.reason) == (release.activation_id, GOOD, "run r1")
    assert loop.models.get(GOOD).state == "ready"


@pytest.mark.parametrize(
    ("outcome", "settings", "state"),
    [
        ("reject", {}, "declined"),
        ("promote", {"release_mode": "ask"}, "asked"),
        ("promote", {"release_mode": "shadow"}, "shadow"),
        ("promote", {"release_mode": "canary"}, "canary"),
        ("undecided", {"release_undecided": "shadow"}, "shadow"),
        ("undecided", {"release_mode": "canary"}, "asked"),
        ("undecided", {}, "asked"),
        ("undecided", {"release_undecided": "keep"}, "declined"),
        ("reject", {"release_mode": "ask"}, "declined"),
    ],
)
def test_other_verdicts_and_modes_activate_nothing(
    loop: State, judged: Callable[..., int], outcome: str, settings: dict[str, Any], state: str
) -> None:
    release = act(loop, judged(outcome), **settings)
    assert release.state == state
    assert f"The gate says {outcome}." in release.reason
    assert ("POST /v1/releases/1/release" in release.reason) == (state in ("asked", "shadow"))
    assert activations(loop) == [BAD]


@pytest.mark.parametrize("act_of_person", ["another", "the same", "rollback"])
@pytest.mark.parametrize("outcome", ["promote", "undecided"])
def test_person_during_judging_makes_the_verdict_stale(
    loop: State, judged: Callable[..., int], act_of_person: str, outcome: str
) -> None:
    loop.releases.activate(THIRD, None, "anna")
    release_id = judged(outcome)
    if act_of_person == "rollback":
        loop.releases.rollback("anna")
    else:
        loop.releases.activate(THIRD if act_of_person == "the same" else BAD, None, "anna")
    before = activations(loop)
    release = act(loop, release_id)
    assert release.state == "superseded"
    assert "after the candidate was judged against" in release.reason
    assert THIRD in release.reason
    assert activations(loop) == before


def test_resumed_run_does_not_override_a_rollback(loop: State, judged: Callable[..., int]) -> None:
    release_id = judged()
    act(loop, release_id)
    loop.releases.rollback("anna")
    release = act(loop, release_id)
    assert release.state == "superseded"
    assert f"{BAD} was activated (rollback)" in release.reason
    assert activations(loop) == [BAD, GOOD, BAD]


def test_person_and_service_at_once_leave_the_word_of_the_person(loop: State, judged: Callable[..., int]) -> None:
    """Whatever comes first: afterwards the person's version is active, and stays."""
    release_id, barrier = judged(), threading.Barrier(2)
    states = []
    for _ in range(20):
        with loop.database.write() as session:
            row = session.get_one(Release, release_id)
            activation = loop.models.activation()
            row.state, row.judged_against = "judged", activation.id if activation else None

        def person() -> None:
            barrier.wait()
            loop.releases.activate(THIRD, None, "anna")

        thread = threading.Thread(target=person)
        thread.start()
        barrier.wait()
        act(loop, release_id)
        thread.join()
        active = loop.models.activated()
        assert active is not None
        assert active.version == THIRD
        states.append(loop.releases.get(release_id).state)
        act(loop, release_id)
        assert loop.models.activation() is not None
        assert activations(loop)[-1] == THIRD
    assert set(states) == {"superseded"}


@pytest.mark.parametrize(("outcome", "before"), [("reject", "declined"), ("undecided", "asked")])
def test_person_releases_a_candidate_that_was_not_promoted(
    loop: State, judged: Callable[..., int], outcome: str, before: str
) -> None:
    release_id = judged(outcome)
    assert act(loop, release_id).state == before
    released = loop.releases.release(release_id, "looks better at night", "anna")
    assert (released.state, released.reason, released.decided_by) == ("serving", "looks better at night", "anna")
    activation = loop.models.activation()
    assert activation is not None
    assert (activation.version, activation.reason, activation.key_name) == (GOOD, "looks better at night", "anna")
    assert (loop.models.get(GOOD).state, loop.models.get(GOOD).error) == ("ready", None)
    with pytest.raises(ReleaseDecided, match="is serving"):
        loop.releases.release(release_id, "again", "anna")
    with pytest.raises(ReleaseDecided, match=r"can be declined\. POST /v1/models/rollback"):
        loop.releases.decline(release_id, "too late", "anna")


def test_person_releases_a_superseded_candidate(loop: State, judged: Callable[..., int]) -> None:
    release_id = judged()
    loop.releases.activate(THIRD, None, "anna")
    assert loop.releases.get(release_id).state == "superseded"
    assert loop.releases.release(release_id, "better than both", "anna").state == "serving"
    assert activations(loop) == [BAD, THIRD, GOOD]


def test_bundle_that_does_not_load_cannot_be_released(loop: State, judged: Callable[..., int]) -> None:
    release_id = judged("reject")
    act(loop, release_id)
    loop.models.mark(GOOD, "failed", error="its probe failed")
    with pytest.raises(ModelNotServable, match="its probe failed"):
        loop.releases.release(release_id, "please", "anna")
    assert activations(loop) == [BAD]


@pytest.mark.parametrize("outcome", ["promote", "reject", "undecided"])
def test_candidate_that_a_person_activated_while_it_was_judged_is_not_taken_back(
    loop: State, judged: Callable[..., int], outcome: str
) -> None:
    before = loop.models.activation()
    loop.releases.activate(GOOD, "its masks look good", "anna")
    release = act(loop, judged(outcome, against=before))
    assert (release.state, release.reason, release.decided_by) == ("serving", "its masks look good", "anna")
    assert not release.watched
    assert (loop.models.get(GOOD).state, activations(loop)) == ("ready", [BAD, GOOD])


def test_release_of_the_active_version_says_serving_after_rollbacks(loop: State, judged: Callable[..., int]) -> None:
    release_id = judged()
    act(loop, release_id)
    loop.releases.activate(THIRD, None, "anna")
    assert loop.releases.get(release_id).state == "superseded"
    loop.releases.rollback("bert")
    release = loop.releases.get(release_id)
    assert (release.state, release.reason, release.decided_by) == ("serving", "rollback", "bert")
    assert activations(loop)[-1] == GOOD


def test_release_serves_again_when_the_one_after_it_is_withdrawn(loop: State, judged: Callable[..., int]) -> None:
    first = judged()
    act(loop, first)
    second = judged(version=THIRD, run=2)
    act(loop, second)
    assert [loop.releases.get(each).state for each in (first, second)] == ["superseded", "serving"]
    with loop.database.write() as session:
        assert withdraw(session, session.get_one(Release, second), "9 of 9 inferences failed")
    assert [loop.releases.get(each).state for each in (first, second)] == ["serving", "withdrawn"]
    assert not loop.releases.get(first).watched
    assert activations(loop) == [BAD, GOOD, THIRD, GOOD]


def test_released_model_that_does_not_load_is_withdrawn_with_the_reason(
    loop: State, judged: Callable[..., int]
) -> None:
    release_id = judged()
    act(loop, release_id)
    loop.models.mark(GOOD, "failed", error="its probe failed")
    loop.release_watch.tick()
    release = loop.releases.get(release_id)
    assert (release.state, release.reason) == ("withdrawn", "It does not load: its probe failed")


@pytest.mark.parametrize("state", ["shadow", "canary"])
def test_newer_candidate_takes_the_place_of_the_one_in_traffic(
    loop: State, judged: Callable[..., int], state: str
) -> None:
    first, second = judged(), judged(version=THIRD, run=2)
    act(loop, first, release_mode="canary")
    act(loop, second, release_mode=state)
    assert [loop.releases.get(each).state for each in (first, second)] == ["superseded", state]
    assert THIRD in loop.releases.get(first).reason
    assert activations(loop) == [BAD]


def test_canary_is_compared_with_the_other_traffic_since_its_beginning(loop: State, judged: Callable[..., int]) -> None:
    """If the machine fails now, it fails for both models; that it did not before is no merit of the active one."""
    release_id = judged()
    latency = Counter({(36, 1, 0, 20): 1000})
    with loop.database.write() as session:
        write_counts(session, {BAD: Counts(1000, 0, latency)})
    act(loop, release_id, release_mode="canary")
    with loop.database.write() as session:
        write_counts(session, {BAD: Counts(19)})
    # Too few: a canary that gets nearly all images must not be compared with nothing.
    assert loop.releases.with_traffic(release_id)[2].requests == 1019
    with loop.database.write() as session:
        write_counts(session, {BAD: Counts(31, 10, latency), GOOD: Counts(20, 4)})
    _, new, old = loop.releases.with_traffic(release_id)
    assert (new, old) == (Counts(20, 4), Counts(50, 10, latency))


def test_rejected_version_is_activated_only_with_a_reason(loop: State, judged: Callable[..., int]) -> None:
    release_id = judged("reject")
    act(loop, release_id)
    with pytest.raises(ReasonMissing, match=r"The gate says reject.*\?reason="):
        loop.releases.activate(GOOD, None, "anna")
    loop.releases.activate(GOOD, "the labels are wrong", "anna")
    release = loop.releases.get(release_id)
    assert (release.state, release.reason, release.decided_by) == ("serving", "the labels are wrong", "anna")
    assert activations(loop) == [BAD, GOOD]


def test_declined_candidate_stays_declined(loop: State, judged: Callable[..., int]) -> None:
    release_id = judged("undecided")
    act(loop, release_id)
    declined = loop.releases.decline(release_id, "misses thin poles", "anna")
    assert (declined.state, declined.decided_by) == ("declined", "anna")
    loop.releases.activate(THIRD, None, "bert")
    assert loop.releases.get(release_id).state == "declined"
    with pytest.raises(ReleaseDecided, match=r"can be declined\.$"):
        loop.releases.decline(release_id, "again", "anna")


def test_unknown_release_is_an_error(loop: State) -> None:
    for call in (loop.releases.get, lambda i: loop.releases.release(i, "x", None)):
        with pytest.raises(ReleaseNotFound):
            call(7)
