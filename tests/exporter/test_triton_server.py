"""A real Triton server on an exported model repository, called over HTTP.

PyTriton's wheel contains a Triton server for CPUs with the Python backend and without the onnxruntime backend, so the
tensor model is exported with `--backend python`. It needs numpy 1, hence a separate environment:

    uv venv .venv/triton
    uv pip install --python .venv/triton/bin/python --no-deps nvidia-pytriton==0.7.0
    uv pip install --python .venv/triton/bin/python 'numpy<2' pillow onnxruntime

TRITON_ENVIRONMENT sets another folder.
"""

import http.client
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from exporter.probe import scene
from exporter.runtime import OnnxPredictor
from tests.exporter.conftest import COLORS, GOLDEN, NAMES
from tests.exporter.test_command_line import run
from tests.exporter.test_triton_repository import another_bundle

ENVIRONMENT = Path(os.environ.get("TRITON_ENVIRONMENT", Path(sys.prefix) / "triton"))
START_LIMIT_S = 90
NO_ONNXRUNTIME = "unable to find backend library for backend 'onnxruntime'"

pytestmark = pytest.mark.slow

Mask = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    body: Any
    tensors: bytes
    """The binary tensors after the JSON."""

    @property
    def pngs(self) -> list[bytes]:
        """The elements of a BYTES tensor, each preceded by its length."""
        found, rest = [], self.tensors
        while rest:
            (length,) = struct.unpack("<I", rest[:4])
            found.append(rest[4 : 4 + length])
            rest = rest[4 + length :]
        return found


@dataclass(frozen=True)
class Triton:
    """A running server."""

    port: int
    repository: Path

    def request(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        end = int(answer.headers.get("Inference-Header-Content-Length", len(content)))
        return Answer(answer.status, json.loads(content[:end] or b"{}"), content[end:])

    def infer(self, model: str, given: dict[str, Any], payload: bytes, wanted: str) -> Answer:
        """Run inference with one binary input and one binary output."""
        head = json.dumps(
            {
                "inputs": [given | {"parameters": {"binary_data_size": len(payload)}}],
                "outputs": [{"name": wanted, "parameters": {"binary_data": True}}],
            }
        ).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        return self.request("POST", f"/v2/models/{model}/infer", head + payload, headers)

    def segment(self, *files: bytes, model: str = "places_encoded") -> Answer:
        """Send files to the encoded model in one request."""
        payload = b"".join(struct.pack("<I", len(file)) + file for file in files)
        given = {"name": "image_bytes", "datatype": "BYTES", "shape": [len(files), 1]}
        return self.infer(model, given, payload, "mask_png")

    def load(self, model: str) -> Answer:
        """Make the server reload a model's folder."""
        return self.request("POST", f"/v2/repository/models/{model}/load", b"{}")


def export(bundle: Path, repository: Path, name: str, *options: str) -> None:
    ran = run("triton", bundle, "--out", repository, "--name", name, *options)
    assert ran.returncode == 0, ran.stderr


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A server that has loaded the golden bundle as `places` and loads further models on request."""
    folder = tmp_path_factory.mktemp("triton")
    command, environment = server(folder / "backends")
    repository = folder / "repository"
    export(GOLDEN, repository, "places", "--backend", "python", "--kind", "cpu")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    command += [f"--model-repository={repository}", f"--http-port={port}", "--http-address=127.0.0.1"]
    command += ["--allow-grpc=false", "--allow-metrics=false", "--model-control-mode=explicit"]
    command += ["--load-model=places", "--load-model=places_encoded"]
    log = folder / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(command, env=environment, stdout=sink, stderr=subprocess.STDOUT)
    try:
        wait_until_ready(Triton(port, repository), process, log)
        yield Triton(port, repository)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def server(backends: Path) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment variables of the wheel's server; skip if it is not installed."""
    found = sorted(ENVIRONMENT.glob("lib/python3*/site-packages/pytriton/tritonserver"))
    if not found:
        pytest.skip(f"no Triton in {ENVIRONMENT}: run `make triton`")
    home = found[0]
    version = home.parents[2].name.removeprefix("python")
    script = "import sysconfig as s; print(s.get_config_var('LIBDIR'), s.get_config_var('INSTSONAME'))"
    python = [str(ENVIRONMENT / "bin" / "python"), "-c", script]
    libraries, name = subprocess.run(python, capture_output=True, text=True, check=True).stdout.split()
    if not (Path(libraries) / name).is_file() or ".so" not in name:
        pytest.skip(f"Triton's Python backend needs a shared libpython, and {ENVIRONMENT}'s Python has none")
    # The wheel has one stub per Python version, and the backend needs the right one in its own folder.
    folder = backends / "python"
    folder.mkdir(parents=True)
    stub = home / "python_backend_stubs" / version / "triton_python_backend_stub"
    for file in (*(home / "backends" / "python").iterdir(), stub):
        (folder / file.name).symlink_to(file)
    paths = {
        # The stub uses the first Python on the path, with its packages.
        "PATH": f"{ENVIRONMENT / 'bin'}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": f"{home.parents[1] / 'nvidia_pytriton.libs'}:{libraries}",
    }
    return [str(home / "bin" / "tritonserver"), f"--backend-directory={backends}"], os.environ | paths


def wait_until_ready(triton: Triton, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(START_LIMIT_S * 10):
        assert process.poll() is None, log.read_text(errors="replace")[-5000:]
        try:
            if triton.request("GET", "/v2/health/ready").status == 200:
                return
        except ConnectionError:
            pass
        time.sleep(0.1)
    pytest.fail(f"not ready in time: {log.read_text(errors='replace')[-5000:]}")


def photograph(height: int = 120, width: int = 160, seed: int = 0) -> bytes:
    """A JPEG file of a synthetic scene."""
    sink = io.BytesIO()
    Image.fromarray(scene(height, width, seed)).save(sink, "JPEG", quality=90)
    return sink.getvalue()


@pytest.fixture(scope="module")
def predict() -> OnnxPredictor:
    return OnnxPredictor(GOLDEN / "model.onnx")


def expected(predict: OnnxPredictor, file: bytes) -> Mask:
    mask_NHW, *_ = predict(np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))[None])
    mask_HW: Mask = mask_NHW[0]
    return mask_HW


def assert_same(png: bytes, mask_HW: Mask) -> None:
    """Compare masks; the server may run another onnxruntime release, so pixels with nearly equal classes may differ."""
    found_HW = np.asarray(Image.open(io.BytesIO(png)))
    assert found_HW.shape == mask_HW.shape
    assert np.mean(found_HW == mask_HW) >= 0.999
    assert len(np.unique(found_HW)) > 2


def test_mask_png_has_the_class_colours(triton: Triton, predict: OnnxPredictor) -> None:
    file = photograph(117, 203)
    answer = triton.segment(file)
    assert (answer.status, answer.body["model_version"]) == (200, "1")
    (png,) = answer.pngs
    assert_same(png, expected(predict, file))
    picture = Image.open(io.BytesIO(png))
    assert picture.mode == "P"
    assert (picture.getpalette() or [])[: 3 * len(NAMES)] == [value for color in COLORS for value in color]


def test_raw_file_is_a_request(triton: Triton, predict: OnnxPredictor) -> None:
    """As with curl --data-binary and a header for a body without JSON."""
    file, headers = photograph(), {"Inference-Header-Content-Length": "0"}
    answer = triton.request("POST", "/v2/models/places_encoded/infer", file, headers)
    assert answer.status == 200
    assert_same(answer.pngs[0], expected(predict, file))


def test_several_files_in_one_request(triton: Triton, predict: OnnxPredictor) -> None:
    files = [photograph(60, 80), photograph(80, 60, 1), photograph(60, 80, 2)]
    answer = triton.segment(*files)
    assert (answer.status, answer.body["outputs"][0]["shape"]) == (200, [3, 1])
    for file, png in zip(files, answer.pngs, strict=True):
        assert_same(png, expected(predict, file))


def test_invalid_images_fail_alone_in_a_batch_of_requests(triton: Triton, predict: OnnxPredictor) -> None:
    files = [photograph(seed=seed) if seed % 3 else b"no image" for seed in range(12)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(triton.segment, files))
    for file, answer in zip(files, answers, strict=True):
        if file == b"no image":
            assert (answer.status, answer.body["error"][:15]) == (400, "the file is not")
        else:
            assert answer.status == 200
            assert_same(answer.pngs[0], expected(predict, file))


def test_image_with_too_many_pixels_is_rejected(triton: Triton) -> None:
    sink = io.BytesIO()
    Image.new("1", (3000, 1000)).save(sink, "PNG")
    answer = triton.segment(sink.getvalue())
    assert answer.status == 400
    assert "3000x1000 pixels and 2100000 are allowed" in answer.body["error"]


def test_tensor_model_accepts_a_batch(triton: Triton, predict: OnnxPredictor) -> None:
    image_NHW3 = np.stack([scene(40, 56, seed) for seed in range(3)])
    given = {"name": "image", "datatype": "UINT8", "shape": list(image_NHW3.shape)}
    answer = triton.infer("places", given, image_NHW3.tobytes(), "mask")
    assert answer.status == 200
    found_NHW = np.frombuffer(answer.tensors, np.uint8).reshape(image_NHW3.shape[:3])
    assert np.mean(found_NHW == predict(image_NHW3)[0]) >= 0.999


def test_model_config_has_the_classes_and_the_bundle(triton: Triton) -> None:
    config = triton.request("GET", "/v2/models/places/config").body
    found = {key: value["string_value"] for key, value in config["parameters"].items()}
    assert [entry["name"] for entry in json.loads(found["classes"])] == list(NAMES)
    assert found["version_1"].endswith(" model.onnx")
    assert config["output"][0]["label_filename"] == "labels.txt"


def test_new_version_is_loaded_without_failed_requests(triton: Triton, tmp_path: Path) -> None:
    export(GOLDEN, triton.repository, "swapped", "--backend", "python", "--kind", "cpu")
    assert [triton.load(model).status for model in ("swapped", "swapped_encoded")] == [200, 200]
    file, stop, seen = photograph(), threading.Event(), list[int]()

    def keep_sending() -> None:
        while not stop.is_set():
            seen.append(triton.segment(file, model="swapped_encoded").status)

    thread = threading.Thread(target=keep_sending)
    thread.start()
    try:
        export(another_bundle(tmp_path / "second"), triton.repository, "swapped")
        assert triton.load("swapped").status == 200
    finally:
        stop.set()
        thread.join()
    index = triton.request("POST", "/v2/repository/index", b'{"ready": true}')
    assert index.status == 200
    ready = {(model["name"], model["version"]) for model in index.body}
    assert ("swapped", "2") in ready
    assert ("swapped", "1") not in ready
    assert set(seen) == {200}


@pytest.mark.parametrize("options", [["--kind", "cpu"], ["--kind", "gpu", "--tensorrt"]])
def test_triton_accepts_the_config_for_the_onnxruntime_backend(triton: Triton, options: list[str]) -> None:
    """The wheel lacks this backend: that Triton searches for it shows that it has accepted the file."""
    name = "".join(["graph", *options])
    export(GOLDEN, triton.repository, name, *options)
    answer = triton.load(name)
    assert answer.status == 400
    assert NO_ONNXRUNTIME in answer.body["error"]


def test_triton_rejects_an_invalid_config(triton: Triton) -> None:
    export(GOLDEN, triton.repository, "broken")
    file = triton.repository / "broken" / "config.pbtxt"
    file.write_text(file.read_text().replace("max_batch_size", "largest_batch"))
    answer = triton.load("broken")
    assert answer.status == 500
    assert "failed to poll from model repository" in answer.body["error"]
