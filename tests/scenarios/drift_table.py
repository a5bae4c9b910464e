"""What the drift scenario has shown, in Markdown."""

from __future__ import annotations

from typing import Any

Result = dict[str, Any]


def table(results: dict[str, Result]) -> str:
    """Return all tables."""
    scores = [_scores(name, results[name]["scores"]) for name in ("drift", "validated") if name in results]
    return "\n".join([_drift_tests(results), *scores, _runs(results), _withdrawals(results)])


def failures(results: dict[str, Result]) -> list[str]:
    """List what did not happen as it should."""
    poisoned, last = results["poisoned"], results.get("validated", results["drift"])
    checks = {
        "usual traffic raised an alarm": any(test["alarm"] for test in results["usual"]["tests"]),
        "the other sequences raised no alarm": not any(test["alarm"] for test in results["drift"]["tests"]),
        "the retrained model does not serve": last["release"]["state"] != "serving",
        "it is not shown to be better on the other sequences": _lower_limit(last["scores"]) <= 0,
        "the poisoned model was not rejected": poisoned["run"]["report"]["outcome"] != "reject",
        "the poisoned run changed the active model": len(set(poisoned["active"])) > 1,
    }
    for name in ("failing", "slow"):
        found = results[name]
        checks[f"the {name} model was not withdrawn"] = found["release"]["state"] != "withdrawn"
        checks[f"requests failed after the {name} model was withdrawn"] = found["failed_after"] > 0
    return [what for what, failed in checks.items() if failed]


def _lower_limit(scores: dict[str, Result]) -> float:
    return float(scores["other sequences"]["lower"]) if scores else -1.0


def _drift_tests(results: dict[str, Result]) -> str:
    lines = ["| drift test of | new images | training images | MMD² | p | alarm |", "|---|---|---|---|---|---|"]
    for name, tests in (
        ("the first sequence", results["usual"]["tests"]),
        ("the other sequences", results["drift"]["tests"][: -len(results["usual"]["tests"]) or None]),
    ):
        lines += [
            f"| {name} | {test['images']} | {test['reference_images']} | {test['mmd2']:.4f} | {test['p_value']:.5f} | "
            f"{'yes' if test['alarm'] else 'no'} |"
            for test in reversed(tests)
        ]
    return "\n".join(lines) + "\n"


def _scores(run: str, scores: dict[str, Result]) -> str:
    if not scores:
        return ""
    lines = [
        f"| run {run}: mIoU over HTTP | images | before | after | difference | 90 % interval |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {part} | {s['images']} in {s['units']} stretches | {100 * s['before']:.1f} | {100 * s['after']:.1f} | "
        f"{100 * s['difference']:+.1f} | {100 * s['lower']:+.1f} to {100 * s['upper']:+.1f} |"
        for part, s in scores.items()
    ]
    classes = scores["other sequences"]["classes"]
    lines += ["", f"| other sequences, IoU | {' | '.join(classes)} |", f"|---|{'---|' * len(classes)}"]
    for column, name in enumerate(("before", "after")):
        lines.append(f"| {name} | {' | '.join(f'{100 * values[column]:.1f}' for values in classes.values())} |")
    return "\n".join(lines) + "\n"


def _runs(results: dict[str, Result]) -> str:
    lines = ["| run | started by | verdict | release | the sentence of the verdict |", "|---|---|---|---|---|"]
    for name in (name for name in ("drift", "validated", "poisoned", "failing", "slow") if name in results):
        run, release = results[name]["run"], results[name]["release"]
        report = run["report"]
        lines.append(f"| {name} | {run['reason']} | {report['outcome']} | {release['state']} | {report['sentence']} |")
    return "\n".join(lines) + "\n"


def _withdrawals(results: dict[str, Result]) -> str:
    lines = [
        "| faulty model | its answers | failed requests | failed after the withdrawal | reason shown |",
        "|---|---|---|---|---|",
    ]
    for name in ("failing", "slow"):
        found = results[name]
        lines.append(
            f"| {name} | {found['answered_by_faulty']} | {found['failed']} of {found['requests']} | "
            f"{found['failed_after']} of {found['answered_after']} | {found['release']['reason']} |"
        )
    return "\n".join(lines) + "\n"
