"""Calls of `/v1/runs` and `/v1/drift`: retraining, and when it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.client.answers import History, NextRun, Run, RunPage
from service.client.call import Call, Pages, Request, dict_call, json_body, model_call, text_call
from service.client.quoting import quoted

RUNS = "/v1/runs"
PAGE = 100


def start_run(*, start_from: str | None = None) -> Call[Run]:
    """Start a run with the images of the pool.

    `start_from` is `active` (the active model), `encoder` (its pretrained weights) or a version; None: the service's
    setting. Raises Conflict if labels are missing or a run is active.
    """
    if start_from is None:
        return model_call(Run, Request(method="POST", path=RUNS))
    content, headers = json_body({"start_from": start_from})
    return model_call(Run, Request(method="POST", path=RUNS, content=content, headers=headers))


def repeat_run(run_id: str, *, without_deleted: bool = False) -> Call[Run]:
    """Start a run with the images, labels, recipe and seed of another one."""
    path = f"{RUNS}/{quoted(run_id)}/repeat"
    return model_call(Run, Request(method="POST", path=path, params={"without_deleted": without_deleted or None}))


def list_runs() -> Pages[Run]:
    """List the runs, newest first."""

    def page(cursor: str | None) -> Call[tuple[Sequence[Run], str | None]]:
        request = Request(method="GET", path=RUNS, params={"limit": PAGE, "cursor": cursor}, repeatable=True)
        parse = model_call(RunPage, request).parse
        return Call(request, lambda response: ((found := parse(response)).runs, found.next_cursor))

    return Pages(page)


def next_run() -> Call[NextRun]:
    """Ask what is missing until the next run starts by itself."""
    return model_call(NextRun, Request(method="GET", path=f"{RUNS}/next", repeatable=True))


def get_run(run_id: str) -> Call[Run]:
    """Get the progress or the outcome of a run."""
    return model_call(Run, _get(run_id))


def cancel_run(run_id: str) -> Call[Run]:
    """Cancel a run. A queued run ends at once, a running one within seconds."""
    return model_call(Run, Request(method="POST", path=f"{RUNS}/{quoted(run_id)}/cancel"))


def delete_run(run_id: str) -> Call[Run]:
    """Delete log, history, checkpoint and report of a run; its record and its recipe stay."""
    return model_call(Run, Request(method="DELETE", path=f"{RUNS}/{quoted(run_id)}"))


def run_history(run_id: str, *, points: int = 500) -> Call[History]:
    """Get losses and evaluations, at most `points` of each."""
    return model_call(History, _get(run_id, "/history", points=points))


def run_log(run_id: str, *, tail: int = 1000) -> Call[str]:
    """Get the last lines of the log of trainer and exporter."""
    return text_call(_get(run_id, "/log", tail=tail))


def run_recipe(run_id: str) -> Call[str]:
    """Get the trainer's recipe, in TOML."""
    return text_call(_get(run_id, "/recipe"))


def run_report(run_id: str) -> Call[str]:
    """Get the trainer's report, an HTML page."""
    return text_call(_get(run_id, "/report"))


def get_drift(*, days: int | None = None, tests: int | None = None) -> Call[dict[str, Any]]:
    """Compare the newest images with the training data of the active model."""
    return dict_call(Request(method="GET", path="/v1/drift", params={"days": days, "tests": tests}, repeatable=True))


def _get(run_id: str, below: str = "", **params: int) -> Request:
    return Request(method="GET", path=f"{RUNS}/{quoted(run_id)}{below}", params=params, repeatable=True)
