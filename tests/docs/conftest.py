"""A folder with every file that the documentation names, and a running service."""

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from service.storage.database import Database
from service.storage.tables import Worker
from tests.contract.conftest import free_port
from tests.docs.blocks import ROOT
from tests.service.conftest import eventually
from tests.service.tiny_bundle import write_bundle, zipped

RECIPE = """\
method = "unimatch_v2"
[data]
root = "DATASET"
crop = [32, 32]
[model]
encoder = "vit_tiny_patch16_224"
encoder_options = { depth = 1, embed_dim = 24, num_heads = 2, patch_size = 8, img_size = 64 }
weights = "none"
features = 8
projections = [8, 8, 8, 8]
[train]
steps = 2
batch_labelled = 2
batch_unlabelled = 2
lr_encoder = 1e-3
device = "cpu"
"""
SHELL = """\
set -euo pipefail
python() { command "$PYTHON" "$@"; }
maskloop() { command "$PYTHON" -m maskloop "$@"; }
curl() {
    case "$*" in
    */events*) command curl --fail-with-body -sS --max-time 1 "$@" || test $? -eq 28 ;;  # a queued run has no end
    *) command curl --fail-with-body -sS --max-time 20 "$@" ;;
    esac
}
"""
BLOCK_LIMIT_S = 30


@dataclass(frozen=True, slots=True)
class Place:
    """Where the commands of the documentation run.

    Attributes:
        folder: The working folder.
        client: Of the service, with the first key.
        key: That key.
        starter: The version of the starter model.
        image_id: Of photo.jpg in the pool.
    """

    folder: Path
    client: httpx.Client
    key: str
    starter: str
    image_id: str

    def shell(self, text: str) -> None:
        """Run a shell block whose placeholders stand for what the service has."""
        preamble = SHELL if "KEY=" in text else f"{SHELL}KEY={self.key}\n"
        self._run(["bash", "-c", preamble + self._filled(text)])

    def python(self, text: str) -> None:
        """Run a Python block."""
        self._run([sys.executable, "-c", self._filled(text)])

    @property
    def server(self) -> str:
        """Its address."""
        return str(self.client.base_url)

    def reset(self) -> None:
        """Let the starter model be active, and no run."""
        for run in self.client.get("/v1/runs").json()["runs"]:
            if run["status"] in ("queued", "running"):
                self.client.post(f"/v1/runs/{run['id']}/cancel").raise_for_status()
        self.activate(self.starter)

    def activate(self, version: str) -> None:
        """Make a version active and wait until it serves."""
        if self.client.get("/v1/models").json()["serving"] != version:
            self.client.post(f"/v1/models/{version}/activate", params={"wait_s": 15}).raise_for_status()

    def _filled(self, text: str) -> str:
        if "RUN_ID" in text:
            run = self.client.post("/v1/runs")
            run.raise_for_status()
            text = text.replace("RUN_ID", run.json()["id"])
        text = text.replace("IMAGE_ID", self.image_id).replace("VERSION", self.starter)
        return re.sub(r"localhost:8000", self.client.base_url.netloc.decode(), text)

    def _run(self, command: list[str]) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MASKLOOP_")}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "MASKLOOP_SERVER": self.server},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=BLOCK_LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout.decode(errors="replace")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs, a label, a bundle, a data set and a recipe of two steps."""
    from tests.trainer.conftest import write_dataset  # imports torch, which the links do not need

    made = tmp_path_factory.mktemp("docs")
    rng = np.random.default_rng(0)
    for name in ("photo.jpg", "a.jpg", "b.jpg", *(f"pool{i}.jpg" for i in range(5))):
        Image.fromarray(rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)).save(made / name)
    label = np.zeros((96, 128), np.uint8)
    label[:48] = 1
    Image.fromarray(label).save(made / "label.png")
    (made / "bundle.zip").write_bytes(zipped(write_bundle(made / "tiny")))
    write_dataset(made / "DATASET")
    shutil.copy(made / "DATASET/splits/val.txt", made / "DATASET/splits/test.txt")
    recipe = made / "trainer/recipes/own/cpu.toml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text(RECIPE)
    return made


class Programs:
    """Runs commands of the trainer and the exporter in this process, which imports torch once. Each command once."""

    def __init__(self) -> None:
        self._done: set[str] = set()

    def run(self, command: str) -> None:
        """Run `python -m PROGRAM ...` in the present folder; what it is to write is removed before."""
        if command in self._done:
            return
        _, _, program, *arguments = shlex.split(command)
        if "--out" in arguments:
            shutil.rmtree(arguments[arguments.index("--out") + 1], ignore_errors=True)
        assert importlib.import_module(f"{program}.__main__").main(arguments) == 0, command
        self._done.add(command)


@pytest.fixture(scope="session")
def programs() -> Programs:
    """One for all tests; tensors of a few pixels are slower on several threads."""
    import torch

    torch.set_num_threads(1)
    return Programs()


@pytest.fixture(scope="session")
def place(folder: Path) -> Iterator[Place]:
    """The folder with a running service, whose pool suffices for a run."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MASKLOOP_")}
    # The worker below sends no heartbeat.
    environment |= {"PYTHONPATH": str(ROOT), "MASKLOOP_HEARTBEAT_S": "3600"}
    command = [sys.executable, "-m", "service", "serve", "--port", str(port)]
    with (folder / "service.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stderr=log)
    try:
        wait_until_ready(address, process)
        key = (folder / "maskloop-data/api-key").read_text().strip()
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=address, headers=headers, timeout=20) as client:
            yield _filled(folder, client, key)
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_until_ready(address: str, process: subprocess.Popen[bytes]) -> None:
    """Return when the service answers /readyz with 200."""

    def ready() -> bool:
        assert process.poll() is None, "the service ended at its start: see service.log in its folder"
        try:
            return httpx.get(f"{address}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    eventually(ready)


def _filled(folder: Path, client: httpx.Client, key: str) -> Place:
    starter = client.get("/v1/models").json()["serving"]
    image_id = client.post("/v1/images", content=(folder / "photo.jpg").read_bytes()).json()["id"]
    label = (folder / "label.png").read_bytes()
    for index, split in enumerate(("labelled",) * 4 + ("val",)):
        image = client.post("/v1/images", content=(folder / f"pool{index}.jpg").read_bytes()).json()
        client.put(f"/v1/images/{image['id']}/mask", params={"split": split}, content=label).raise_for_status()
    # A worker that never takes a run.
    database = Database(f"sqlite:///{folder}/maskloop-data/maskloop.db")
    with database.write() as session:
        session.add(Worker(id="docs", can_train=True, pid=1, host="docs"))
    database.close()
    found = Place(folder, client, key, starter, image_id)
    # Another version has been active before, so that a rollback has somewhere to go.
    other = zipped(write_bundle(folder / "other", version="20260102T000000-bbbbbbbb"))
    version = client.post("/v1/models", content=other, headers={"Content-Type": "application/zip"}).json()["version"]
    found.activate(version)
    found.activate(starter)
    return found
