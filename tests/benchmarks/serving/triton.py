"""Triton from PyTriton's wheel, which runs on a CPU and holds the Python backend alone: its command and environment."""

import os
import subprocess
from pathlib import Path

MODEL = Path(__file__).parent / "peers" / "triton"


class NoTriton(Exception):  # noqa: N818 - reads as what it is
    """It cannot run here; the message says why."""


def command(environment: Path, folder: Path, port: int, cores: int) -> list[str]:
    """Lay out a model repository and the backend in a folder, and the command that serves it.

    Raises:
        NoTriton: The wheel's server cannot run here.
    """
    home, _ = _home(environment)
    backends, model = folder / "backends" / "python", folder / "models" / "segment"
    # The wheel holds a stub for each Python, and the backend wants one of them beside itself.
    stub = home / "python_backend_stubs" / home.parents[2].name.removeprefix("python") / "triton_python_backend_stub"
    if not stub.is_file():
        raise NoTriton(f"its wheel has no stub for {home.parents[2].name}")
    backends.mkdir(parents=True)
    for file in (*(home / "backends" / "python").iterdir(), stub):
        (backends / file.name).symlink_to(file)
    (model / "1").mkdir(parents=True)
    (model / "1" / "model.py").write_bytes((MODEL / "model.py").read_bytes())
    (model / "config.pbtxt").write_text((MODEL / "config.pbtxt").read_text().replace("count: CORES", f"count: {cores}"))
    words = [str(home / "bin" / "tritonserver"), f"--backend-directory={backends.parent}"]
    words += [f"--model-repository={model.parent}", f"--http-port={port}", "--http-address=127.0.0.1"]
    return [*words, "--allow-grpc=false", "--allow-metrics=false"]


def environment(environment: Path) -> dict[str, str]:
    """What its processes need to find their Python and the wheel's libraries. Raises NoTriton."""
    home, libraries = _home(environment)
    return {
        # The stub takes the Python, and with it the packages, that it finds first.
        "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": f"{home.parents[1] / 'nvidia_pytriton.libs'}:{libraries}",
    }


def _home(environment: Path) -> tuple[Path, str]:
    """The server's folder in the wheel, and that of libpython."""
    found = sorted(environment.glob("lib/python3*/site-packages/pytriton/tritonserver"))
    if not found:
        raise NoTriton(f"no PyTriton in {environment.name}")
    ask = "import sysconfig as s; print(s.get_config_var('LIBDIR'), s.get_config_var('INSTSONAME'))"
    python = [str(environment / "bin" / "python"), "-c", ask]
    libraries, name = subprocess.run(python, capture_output=True, text=True, check=True).stdout.split()
    if not (Path(libraries) / name).is_file() or ".so" not in name:
        raise NoTriton("its Python backend needs a shared libpython, and this Python has none")
    return found[0], libraries
