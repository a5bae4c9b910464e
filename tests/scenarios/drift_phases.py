"""The phases of the drift scenario. Each may be repeated after an interruption: the pool keeps what was sent before."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from demo.terminal import Report, Terminal
from tests.scenarios.drift_frames import DriftFrames
from tests.scenarios.frames import Frame, image_file, mask_file
from tests.scenarios.served_score import compare_served, count_served
from tests.scenarios.session import Session, wait_until
from tests.scenarios.traffic import Traffic

ANALYSIS_TIMEOUT_S = 900.0
TEST_TIMEOUT_S = 60.0
WITHDRAWAL_TIMEOUT_S = 600.0
GROUP_SECONDS = 5
WARM_UP = 40
"""Requests that the model before must have answered before the faulty one is released."""

Result = dict[str, Any]
Parts = Mapping[str, Sequence[Frame]]


def send_labels(session: Session, data: Path, frames: DriftFrames, terminal: Terminal) -> None:
    """Send the labels of the first sequence."""
    with terminal.phase("send the labels of the first sequence") as report:
        _label(session, data, frames.labelled, "labelled", report)
        _label(session, data, frames.val, "val", report)


def usual_traffic(session: Session, data: Path, frames: Sequence[Frame], terminal: Terminal) -> Result:
    """Send photographs of the first sequence; return the drift tests about them."""
    with terminal.phase(f"send {len(frames)} more photographs of the first sequence") as report:
        for number, frame in enumerate(frames, 1):
            session.contribute(image_file(data, frame))
            report(number, len(frames))
    with terminal.phase("the worker analyses them") as report:
        _wait_for_analysis(session, report)
    # It needs as many images that are no near-duplicates as the window has.
    wait_until(lambda: bool(session.get("/v1/drift")["tests"]), "the drift test", TEST_TIMEOUT_S)
    return {"tests": session.get("/v1/drift")["tests"], "runs": len(session.get("/v1/runs")["runs"])}


def drift(session: Session, data: Path, frames: DriftFrames, terminal: Terminal) -> Result:
    """Send photographs of the other sequences, and follow the run that the alarm starts; compare both models."""
    first = session.get("/v1/drift")["model"]
    start = time.monotonic()
    with terminal.phase(f"send {len(frames.new)} photographs of the other sequences") as report:
        # Faster than the worker analyses them, so that the run that the first alarm starts has all of them.
        for number, frame in enumerate(frames.new, 1):
            session.add(image_file(data, frame))
            report(number, len(frames.new))
    with terminal.phase("the drift alarm starts a run"):
        wait_until(lambda: bool(_drift_runs(session)), "the drift alarm", ANALYSIS_TIMEOUT_S)
    alarm_s, tests = time.monotonic() - start, session.get("/v1/drift")["tests"]
    # The service has seen no label of them.
    parts = _parts(sorted([*frames.new_val, *frames.held_out]), frames.val)
    found = _outcome(session, _drift_runs(session)[0]["id"], data, parts, terminal)
    return {"first": first, "alarm_s": alarm_s, "tests": tests, **found}


def validate(session: Session, data: Path, frames: DriftFrames, terminal: Terminal) -> Result:
    """Label some of the other sequences for validation only, since the gate could not decide, and retrain once more."""
    with terminal.phase(f"label {len(frames.new_val)} photographs of the other sequences for validation") as report:
        _label(session, data, frames.new_val, "val", report)
    return _outcome(session, _start_run(session), data, _parts(frames.held_out, frames.val), terminal)


def compare_versions(
    session: Session, data: Path, parts: Parts, versions: tuple[str, str], terminal: Terminal
) -> Result:
    """Compare two versions, newer first, over HTTP."""
    names = [entry["name"] for entry in session.get(f"/v1/models/{versions[0]}")["classes"]]
    scores = {}
    with terminal.phase("segment photographs with both models") as report:
        for number, (part, chosen) in enumerate(parts.items(), 1):
            after, before = (
                count_served(partial(session.segment, version=version), data, chosen, len(names))
                for version in versions
            )
            scores[part] = compare_served(after, before, chosen, names)
            report(number, len(parts))
    return scores


def poison(session: Session, data: Path, frames: DriftFrames, terminal: Terminal) -> Result:
    """Retrain with the training labels put on wrong images; then send the right ones again."""
    active = session.active_version()
    labelled = frames.labelled
    half = len(labelled) // 2
    with terminal.phase(f"put {len(labelled)} labels on wrong images") as report:
        for number, (frame, other) in enumerate(zip(labelled, labelled[half:] + labelled[:half], strict=True), 1):
            session.label(image_file(data, frame), mask_file(data, other), "labelled", frame.group(GROUP_SECONDS))
            report(number, len(labelled))
    with terminal.phase("the service retrains with them") as report:
        run = session.finished_run(_start_run(session), report)
    send_labels(session, data, frames, terminal)
    return {"run": run, "release": session.release_of(run["id"]), "active": [active, session.active_version()]}


def faulty_release(session: Session, traffic: Traffic, terminal: Terminal) -> Result:
    """Retrain with an exporter that makes a fault, and follow the release in traffic."""
    before = session.active_version()
    with terminal.phase("the model before answers requests") as report:
        wait_until(lambda: _reported(report, len(traffic.answered(before)), WARM_UP), "warm-up", WITHDRAWAL_TIMEOUT_S)
    with terminal.phase("the service makes the faulty model") as report:
        run = session.finished_run(_start_run(session), report)
    version = run["candidate_version"]
    with terminal.phase("the service withdraws it"):
        wait_until(
            lambda: session.release_of(run["id"])["state"] not in ("judged", "serving"),
            "the withdrawal",
            WITHDRAWAL_TIMEOUT_S,
        )
    wait_until(lambda: session.active_version() == before, "the return", 60)
    seen = len(traffic.answers)
    wait_until(lambda: len(traffic.answers) >= seen + WARM_UP, "traffic after the withdrawal", WITHDRAWAL_TIMEOUT_S)
    release = session.release_of(run["id"])
    return {
        "run": run,
        "release": release,
        "answered_by_faulty": len(traffic.answered(version)),
        "failed": traffic.failed,
        "failed_after": sum(answer.version is None for answer in traffic.answers[seen:]),
        "answered_after": len(traffic.answers) - seen,
        "requests": len(traffic.answers),
        "serving": [before, session.active_version()],
    }


def _parts(held_out: Sequence[Frame], val: Sequence[Frame]) -> Parts:
    """Name the frames on which models are compared: all held-out ones, each sequence of them, the first sequence's."""
    by_sequence = {name: [f for f in held_out if f.sequence == name] for name in sorted({f.sequence for f in held_out})}
    return {"other sequences": held_out, **by_sequence, "first sequence (val)": val}


def _outcome(session: Session, run_id: str, data: Path, parts: Parts, terminal: Terminal) -> Result:
    """Wait for the verdict of a run, and compare its model with the one that it continues, over HTTP."""
    with terminal.phase("the service retrains") as report:
        run = session.finished_run(run_id, report)
    release = session.release_of(run_id)
    version, base = run["candidate_version"], release["base_version"]
    if release["state"] == "serving":
        wait_until(lambda: session.active_version() == version, "the swap", 60)
    # A model that was rejected, or withdrawn, segments nothing.
    usable = release["state"] in ("serving", "asked")
    scores = compare_versions(session, data, parts, (version, base), terminal) if usable else {}
    return {"run": run, "release": release, "scores": scores}


def _label(session: Session, data: Path, frames: Sequence[Frame], split: str, report: Report) -> None:
    for number, frame in enumerate(frames, 1):
        session.label(image_file(data, frame), mask_file(data, frame), split, frame.group(GROUP_SECONDS))
        report(number, len(frames))


def _start_run(session: Session) -> str:
    """Start a run, or find the one that an interrupted scenario started."""
    active = [run for run in session.get("/v1/runs")["runs"] if run["status"] in ("queued", "running")]
    return str(active[0]["id"] if active else session.post("/v1/runs")["id"])


def _wait_for_analysis(session: Session, report: Report) -> None:
    def is_done() -> bool:
        page = session.get("/v1/images", limit=1)
        total = page["labelled"] + page["val"] + page["unlabelled"]
        return _reported(report, sum(day["images"] for day in session.get("/v1/drift")["days"]), total)

    wait_until(is_done, "the analysis", ANALYSIS_TIMEOUT_S)


def _reported(report: Report, done: int, total: int) -> bool:
    report(min(done, total), total)
    return done >= total


def _drift_runs(session: Session) -> list[dict[str, Any]]:
    return [run for run in session.get("/v1/runs")["runs"] if run["reason"] == "drift"]
