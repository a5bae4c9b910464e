"""Every form of a request and of its answer, as bytes on a real connection."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.service.api.v2.conftest import FIRST, IMAGE, PNG, Server, tensor
from tests.service.conftest import encoded, read
from tests.service.tiny_bundle import COLORS, nearest

TRUTH = nearest(IMAGE, COLORS)
Change = Callable[[bytes], bytes]
PACK: dict[str, Change] = {"gzip": gzip.compress, "deflate": zlib.compress, "": bytes}
UNPACK: dict[str, Change] = {"gzip": gzip.decompress, "deflate": zlib.decompress, "": bytes}


def asked(binary: bool) -> tuple[dict[str, Any], bytes]:
    """The input of the tensor model, and what comes behind the JSON."""
    if not binary:
        return tensor(), b""
    return tensor(data=None, parameters={"binary_data_size": IMAGE.size}), IMAGE.tobytes()


def mask_in(said: Any, behind: bytes) -> npt.NDArray[np.uint8]:
    """The first output of an answer, which is the mask, in either form."""
    output = said["outputs"][0]
    size = output.get("parameters", {}).get("binary_data_size")
    values = np.array(output["data"], np.uint8) if size is None else np.frombuffer(behind[:size], np.uint8)
    mask: npt.NDArray[np.uint8] = values.reshape(output["shape"])[0]
    return mask


@pytest.mark.parametrize("there", ["", "gzip", "deflate"])
@pytest.mark.parametrize("back", ["", "gzip", "deflate"])
@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True])
def test_the_matrix(server: Server, there: str, back: str, binary_in: bool, binary_out: bool) -> None:
    given, behind = asked(binary_in)
    head = json.dumps({"inputs": [given], "parameters": {"binary_data_output": binary_out}}).encode()
    headers = {"Content-Encoding": there} if there else {}
    headers |= {"Accept-Encoding": back} if back else {}
    headers |= {"Inference-Header-Content-Length": str(len(head))} if binary_in else {}
    answer = server.infer("seg", PACK[there](head + behind), **headers)
    assert answer.status == 200
    assert answer.headers.get("content-encoding", "") == back
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.headers["x-model-version"] == FIRST
    plain = UNPACK[back](answer.body)
    length = int(answer.headers.get("inference-header-content-length", len(plain)))
    assert (length < len(plain)) == binary_out
    media_type = "application/octet-stream" if binary_out else "application/json"
    assert answer.headers["content-type"] == media_type
    np.testing.assert_array_equal(mask_in(json.loads(plain[:length]), plain[length:]), TRUTH)


def test_each_output_chooses_its_form(server: Server) -> None:
    outputs = [{"name": "confidence"}, {"name": "mask", "parameters": {"binary_data": False}}]
    body = {"inputs": [tensor()], "outputs": outputs, "parameters": {"binary_data_output": True}}
    said, behind = server.infer("seg", body).split()
    confidence, mask = said["outputs"]
    assert confidence["parameters"] == {"binary_data_size": len(behind)}
    assert "data" not in confidence
    assert mask["data"] == TRUTH.ravel().tolist()
    assert "parameters" not in mask


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_file_as_the_whole_body(server: Server, kind: str) -> None:
    file = encoded(IMAGE, kind)
    answer = server.infer("seg_bytes", file, Inference_Header_Content_Length="0")
    said, behind = answer.split()
    assert [output["name"] for output in said["outputs"]] == ["mask_png", "mean_confidence"]
    (length,) = struct.unpack_from("<I", behind)
    np.testing.assert_array_equal(read(behind[4 : 4 + length]), read(server.ask("POST", "/v1/segment", file).body))
    assert struct.unpack("<f", behind[4 + length :])[0] == pytest.approx(0.6, abs=0.4)


def test_a_file_as_base64(server: Server) -> None:
    given = {"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(PNG).decode()]}
    outputs = server.infer("tiny_encoded", {"inputs": [given]}).json()["outputs"]
    np.testing.assert_array_equal(read(base64.b64decode(outputs[0]["data"][0])), TRUTH)
    assert 0.2 < outputs[1]["data"][0] <= 1


def test_chunked_bodies_are_bodies(server: Server) -> None:
    given, behind = asked(True)
    head = json.dumps({"inputs": [given]}).encode()
    parts = iter([head, behind[:1000], behind[1000:]])
    answer = server.infer("seg", parts, Inference_Header_Content_Length=str(len(head)))
    np.testing.assert_array_equal(mask_in(answer.json(), b""), TRUTH)


def test_json_in_other_packings_of_python(server: Server) -> None:
    """What `requests.post(json=...)` and `curl -d` send: types of content that say nothing."""
    for content_type in ("application/json", "application/x-www-form-urlencoded", "text/plain"):
        answer = server.infer("seg", {"inputs": [tensor()]}, Content_Type=content_type)
        np.testing.assert_array_equal(mask_in(answer.json(), b""), TRUTH)


def curl(server: Server, path: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("curl")
    if program is None:
        pytest.skip("curl is not installed; the tests above send the same bytes")
    command = [program, "--silent", "--show-error", "--fail-with-body", "--max-time", "30", *options]
    return subprocess.run([*command, f"http://{server.address}{path}"], capture_output=True, check=False, timeout=60)


def test_curl_with_a_photograph(server: Server, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(encoded(IMAGE, "JPEG", quality=95))
    sent = ["--data-binary", f"@{tmp_path / 'photo.jpg'}", "-H", "Inference-Header-Content-Length: 0"]
    ran = curl(server, "/v2/models/seg_bytes/infer", *sent, "-D", str(tmp_path / "headers"))
    assert ran.returncode == 0, ran.stderr
    headers = dict(
        line.lower().split(": ", 1) for line in (tmp_path / "headers").read_text().splitlines() if ": " in line
    )
    behind = ran.stdout[int(headers["inference-header-content-length"]) :]
    (length,) = struct.unpack_from("<I", behind)
    assert read(behind[4 : 4 + length]).shape == TRUTH.shape
    packed = curl(server, "/v2/models/seg_bytes/infer", *sent, "--compressed")
    assert packed.stdout == ran.stdout


def test_curl_with_json_and_with_errors(server: Server) -> None:
    ran = curl(server, "/v2/models/seg/infer", "-d", json.dumps({"inputs": [tensor(IMAGE[:3, :4])]}))
    np.testing.assert_array_equal(mask_in(json.loads(ran.stdout), b""), TRUTH[:3, :4])
    refused = curl(server, "/v2/models/seg/infer", "-d", "{}")
    assert refused.returncode == 22
    assert "inputs" in json.loads(refused.stdout)["error"]
