"""The servers that are compared: the command, environment and request of each."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[3]
ENVIRONMENTS = ROOT / ".venv"
PEERS = "tests.benchmarks.serving.peers"
TRITON_MODEL = Path(__file__).parent / "peers" / "triton"


class ServerError(Exception):
    """A server cannot be measured on this machine; the message states why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """Parameters with which a server is started."""

    port: int
    folder: Path
    """Folder for the files that it writes."""
    bundle: Path
    cores: int
    """Cores that it may use."""
    settings: dict[str, str] = field(default_factory=dict)
    """Additional environment variables of our service."""
    before: Path | None = None
    """Checkout of an earlier build with its `.venv`, for the server `before`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSpec:
    """How one server is started and called."""

    title: str
    description: str
    """Its settings, for the report."""
    command: Callable[[Launch], list[str]]
    environment: Callable[[Launch], dict[str, str]]
    path: str = "/segment"
    ready_path: str = "/health"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "image/jpeg"})


def python_of(name: str) -> str:
    """Return the interpreter of a peer's virtual environment. Raises ServerError if it is not installed."""
    python = ENVIRONMENTS / f"bench-{name}" / "bin" / "python"
    if not (python.parents[1] / "installed").exists():
        raise ServerError(f"{python.parents[1].name} is not installed: run `make bench-serve`")
    return str(python)


def peer_environment(launch: Launch) -> dict[str, str]:
    """Environment variables of the peers."""
    variables = {"BENCH_PORT": str(launch.port), "BENCH_BUNDLE": str(launch.bundle), "BENCH_CORES": str(launch.cores)}
    return clean_environment() | variables | {"PYTHONPATH": str(ROOT)}


def clean_environment() -> dict[str, str]:
    """This process's environment without settings of the service."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MASKLOOP_")}


def _module(environment: str, module: str) -> Callable[[Launch], list[str]]:
    return lambda _: [python_of(environment), "-m", f"{PEERS}.{module}"]


def _service_command(launch: Launch) -> list[str]:
    return [sys.executable, *_service_arguments(launch)]


def _before_command(launch: Launch) -> list[str]:
    if launch.before is None:
        raise ServerError("it needs --before, a checkout of an earlier build")
    # -P: `service` must be the package installed in that environment, not the one of the current folder.
    return [str(launch.before / ".venv" / "bin" / "python"), "-P", *_service_arguments(launch)]


def _service_arguments(launch: Launch) -> list[str]:
    command = ["-m", "service", "serve", "--port", str(launch.port), "--model", str(launch.bundle)]
    return [*command, "--data-dir", str(launch.folder / "data")]


def _service(
    title: str, description: str, command: Callable[[Launch], list[str]] = _service_command, **variables: str
) -> ServerSpec:
    return ServerSpec(
        title=title,
        description=description,
        command=command,
        environment=lambda launch: clean_environment() | variables | launch.settings,
        path="/v1/segment",
        ready_path="/readyz",
        headers={"Content-Type": "image/jpeg", "Accept": "image/png"},
    )


def _bento_command(launch: Launch) -> list[str]:
    command = [python_of("bentoml"), "-m", "bentoml", "serve", f"{PEERS}.bento_ml:Segmenter"]
    return [*command, "--working-dir", str(ROOT), "--host", "127.0.0.1", "--port", str(launch.port)]


def _bento_environment(launch: Launch) -> dict[str, str]:
    return peer_environment(launch) | {"BENTOML_HOME": str(launch.folder), "BENTOML_DO_NOT_TRACK": "True"}


def _triton_command(launch: Launch) -> list[str]:
    """Write a model repository and link the backend to a folder; return the command that serves it.

    PyTriton's wheel contains a Triton server for CPUs with the Python backend only. The backend needs the wheel's stub
    for the installed Python version in its own folder.
    """
    python_of("triton")
    home, _ = _triton_home()
    backends, model = launch.folder / "backends" / "python", launch.folder / "models" / "segment"
    stub = home / "python_backend_stubs" / home.parents[2].name.removeprefix("python") / "triton_python_backend_stub"
    if not stub.is_file():
        raise ServerError(f"PyTriton's wheel has no stub for {home.parents[2].name}")
    backends.mkdir(parents=True)
    for file in (*(home / "backends" / "python").iterdir(), stub):
        (backends / file.name).symlink_to(file)
    (model / "1").mkdir(parents=True)
    (model / "1" / "model.py").write_bytes((TRITON_MODEL / "model.py").read_bytes())
    config = (TRITON_MODEL / "config.pbtxt").read_text().replace("count: CORES", f"count: {launch.cores}")
    (model / "config.pbtxt").write_text(config)
    command = [str(home / "bin" / "tritonserver"), f"--backend-directory={backends.parent}"]
    command += [f"--model-repository={model.parent}", f"--http-port={launch.port}", "--http-address=127.0.0.1"]
    return [*command, "--allow-grpc=false", "--allow-metrics=false"]


def _triton_environment(launch: Launch) -> dict[str, str]:
    home, libraries = _triton_home()
    return peer_environment(launch) | {
        # The stub uses the first Python on PATH, and its packages.
        "PATH": f"{ENVIRONMENTS / 'bench-triton' / 'bin'}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": f"{home.parents[1] / 'nvidia_pytriton.libs'}:{libraries}",
    }


def _triton_home() -> tuple[Path, str]:
    """Return the server's folder in the wheel and the folder of libpython."""
    environment = ENVIRONMENTS / "bench-triton"
    found = sorted(environment.glob("lib/python3*/site-packages/pytriton/tritonserver"))
    if not found:
        raise ServerError(f"PyTriton is not installed in {environment.name}")
    program = "import sysconfig as s; print(s.get_config_var('LIBDIR'), s.get_config_var('INSTSONAME'))"
    command = [str(environment / "bin" / "python"), "-c", program]
    libraries, name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    if not (Path(libraries) / name).is_file() or ".so" not in name:
        raise ServerError("its Python backend needs a shared libpython, and this Python has none")
    return found[0], libraries


SERVERS = {
    "ours": _service("Maskloop", "`python -m service serve`, fp32 like all others", MASKLOOP_PRECISION="fp32"),
    "before": _service("Maskloop, earlier build", "as Maskloop", _before_command, MASKLOOP_PRECISION="fp32"),
    # For a bundle of several graphs: the service selects the one that suits the device; the others run fp32.
    "ours-auto": _service("Maskloop, its choice of graph", "`python -m service serve` with default settings"),
    "fastapi": ServerSpec(
        title="FastAPI, plain",
        description="`def` route, one session with all threads, uvicorn with uvloop and httptools",
        command=_module("fastapi", "plain_fastapi"),
        environment=peer_environment,
    ),
    "litserve": ServerSpec(
        title="LitServe",
        description="one worker per core with one thread, timeout 2 s, raw body",
        command=_module("litserve", "lit_serve"),
        environment=peer_environment,
    ),
    "bentoml": ServerSpec(
        title="BentoML",
        description="one worker per core with one thread, max_concurrency 32 per worker, no access log",
        command=_bento_command,
        environment=_bento_environment,
        ready_path="/readyz",
    ),
    "triton": ServerSpec(
        title="Triton, Python backend",
        description="one instance per core with one thread, max_queue_size 32, raw binary request",
        command=_triton_command,
        environment=_triton_environment,
        path="/v2/models/segment/infer",
        ready_path="/v2/health/ready",
        headers={"Inference-Header-Content-Length": "0"},
    ),
}
"""By the names of the option --sides."""
