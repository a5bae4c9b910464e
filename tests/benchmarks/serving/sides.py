"""The servers that are held side by side: how each is started and asked."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.serving import triton

ROOT = Path(__file__).parents[3]
ENVIRONMENTS = ROOT / ".venv"
PEERS = "tests.benchmarks.serving.peers"


class SideFailed(Exception):  # noqa: N818 - reads as what it is
    """A side cannot be measured here; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a server runs: its port, a folder for what it writes, the bundle, and how many cores it may use."""

    port: int
    folder: Path
    bundle: Path
    cores: int
    settings: dict[str, str] = field(default_factory=dict)
    """Our service's, beside its defaults."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One server."""

    title: str
    says: str
    """Its settings, for the report."""
    command: Callable[[Place], list[str]]
    environment: Callable[[Place], dict[str, str]]
    path: str = "/segment"
    ready: str = "/health"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "image/jpeg"})


def python_of(name: str) -> str:
    """The interpreter of a peer's environment. Raises SideFailed."""
    python = ENVIRONMENTS / f"bench-{name}" / "bin" / "python"
    if not (python.parents[1] / "installed").exists():
        raise SideFailed(f"{python.parents[1].name} is not installed: make bench-serve does it")
    return str(python)


def peer_environment(place: Place) -> dict[str, str]:
    """What peers are told."""
    told = {"BENCH_PORT": str(place.port), "BENCH_BUNDLE": str(place.bundle), "BENCH_CORES": str(place.cores)}
    return clean_environment() | told | {"PYTHONPATH": str(ROOT)}


def clean_environment() -> dict[str, str]:
    """This process's, without what somebody set for a service of theirs."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MASKLOOP_")}


def _module(environment: str, module: str) -> Callable[[Place], list[str]]:
    return lambda _: [python_of(environment), "-m", f"{PEERS}.{module}"]


def _ours(place: Place) -> list[str]:
    words = [sys.executable, "-m", "service", "serve", "--port", str(place.port), "--model", str(place.bundle)]
    return [*words, "--data-dir", str(place.folder / "data")]


def _bento(place: Place) -> list[str]:
    words = [python_of("bentoml"), "-m", "bentoml", "serve", f"{PEERS}.bento_ml:Segmenter", "--working-dir", str(ROOT)]
    return [*words, "--host", "127.0.0.1", "--port", str(place.port)]


def _bento_environment(place: Place) -> dict[str, str]:
    return peer_environment(place) | {"BENTOML_HOME": str(place.folder), "BENTOML_DO_NOT_TRACK": "True"}


def _triton(place: Place) -> list[str]:
    python_of("triton")
    try:
        return triton.command(ENVIRONMENTS / "bench-triton", place.folder, place.port, place.cores)
    except triton.NoTriton as reason:
        raise SideFailed(str(reason)) from None


def _of_ours(title: str, says: str, **own: str) -> Side:
    return Side(
        title=title,
        says=says,
        command=_ours,
        environment=lambda place: clean_environment() | own | place.settings,
        path="/v1/segment",
        ready="/readyz",
        headers={"Content-Type": "image/jpeg", "Accept": "image/png"},
    )


SIDES = {
    "ours": _of_ours("Maskloop", "`python -m service serve` as it comes, fp32 as all", MASKLOOP_PRECISION="fp32"),
    # For a bundle of several graphs: it takes the one that suits the device, which the others do not run.
    "ours-auto": _of_ours("Maskloop, its choice of graph", "`python -m service serve` as it comes"),
    "fastapi": Side(
        title="FastAPI, plain",
        says="`def` route, one session with all threads, uvicorn with uvloop and httptools",
        command=_module("fastapi", "plain_fastapi"),
        environment=peer_environment,
    ),
    "litserve": Side(
        title="LitServe",
        says="a worker a core of one thread each, timeout 2 s, raw body",
        command=_module("litserve", "lit_serve"),
        environment=peer_environment,
    ),
    "bentoml": Side(
        title="BentoML",
        says="a worker a core of one thread each, max_concurrency 32 a worker, no access log",
        command=_bento,
        environment=_bento_environment,
        ready="/readyz",
    ),
    "triton": Side(
        title="Triton, Python backend",
        says="an instance a core of one thread each, max_queue_size 32, raw binary request",
        command=_triton,
        environment=lambda place: peer_environment(place) | triton.environment(ENVIRONMENTS / "bench-triton"),
        path="/v2/models/segment/infer",
        ready="/v2/health/ready",
        headers={"Inference-Header-Content-Length": "0"},
    ),
}
