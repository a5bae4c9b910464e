"""All forms of inference requests and responses, as bytes on a real connection."""

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
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress, "": bytes}
DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "deflate": zlib.decompress, "": bytes}


def tensor_input(binary: bool) -> tuple[dict[str, Any], bytes]:
    """Return the input of the tensor model, and the bytes that follow the JSON."""
    if not binary:
        return tensor(), b""
    return tensor(data=None, parameters={"binary_data_size": IMAGE.size}), IMAGE.tobytes()


def mask_of(fields: Any, tensors: bytes) -> npt.NDArray[np.uint8]:
    """Return the first output of a response, the mask, from either form."""
    output = fields["outputs"][0]
    size = output.get("parameters", {}).get("binary_data_size")
    values = np.array(output["data"], np.uint8) if size is None else np.frombuffer(tensors[:size], np.uint8)
    mask: npt.NDArray[np.uint8] = values.reshape(output["shape"])[0]
    return mask


@pytest.mark.parametrize("request_encoding", ["", "gzip", "deflate"])
@pytest.mark.parametrize("response_encoding", ["", "gzip", "deflate"])
@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True])
def test_all_combinations_of_form_and_compression_give_the_same_mask(
    server: Server, request_encoding: str, response_encoding: str, binary_in: bool, binary_out: bool
) -> None:
    input_, tensors = tensor_input(binary_in)
    head = json.dumps({"inputs": [input_], "parameters": {"binary_data_output": binary_out}}).encode()
    headers = {"Content-Encoding": request_encoding} if request_encoding else {}
    headers |= {"Accept-Encoding": response_encoding} if response_encoding else {}
    headers |= {"Inference-Header-Content-Length": str(len(head))} if binary_in else {}
    response = server.infer("seg", COMPRESS[request_encoding](head + tensors), **headers)
    assert response.status == 200
    assert response.headers.get("content-encoding", "") == response_encoding
    assert response.headers["vary"] == "Accept-Encoding"
    assert response.headers["x-model-version"] == FIRST
    plain = DECOMPRESS[response_encoding](response.body)
    length = int(response.headers.get("inference-header-content-length", len(plain)))
    assert (length < len(plain)) == binary_out
    media_type = "application/octet-stream" if binary_out else "application/json"
    assert response.headers["content-type"] == media_type
    np.testing.assert_array_equal(mask_of(json.loads(plain[:length]), plain[length:]), TRUTH)


def test_form_of_each_output_can_be_requested(server: Server) -> None:
    outputs = [{"name": "confidence"}, {"name": "mask", "parameters": {"binary_data": False}}]
    body = {"inputs": [tensor()], "outputs": outputs, "parameters": {"binary_data_output": True}}
    fields, tensors = server.infer("seg", body).split()
    confidence, mask = fields["outputs"]
    assert confidence["parameters"] == {"binary_data_size": len(tensors)}
    assert "data" not in confidence
    assert mask["data"] == TRUTH.ravel().tolist()
    assert "parameters" not in mask


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_body_without_json_is_an_encoded_image(server: Server, kind: str) -> None:
    file = encoded(IMAGE, kind)
    response = server.infer("seg_bytes", file, Inference_Header_Content_Length="0")
    fields, tensors = response.split()
    assert [output["name"] for output in fields["outputs"]] == ["mask_png", "mean_confidence"]
    (length,) = struct.unpack_from("<I", tensors)
    np.testing.assert_array_equal(read(tensors[4 : 4 + length]), read(server.request("POST", "/v1/segment", file).body))
    assert struct.unpack("<f", tensors[4 + length :])[0] == pytest.approx(0.6, abs=0.4)


def test_encoded_image_as_base64(server: Server) -> None:
    input_ = {"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(PNG).decode()]}
    outputs = server.infer("tiny_encoded", {"inputs": [input_]}).json()["outputs"]
    np.testing.assert_array_equal(read(base64.b64decode(outputs[0]["data"][0])), TRUTH)
    assert 0.2 < outputs[1]["data"][0] <= 1


def test_chunked_body_is_accepted(server: Server) -> None:
    input_, tensors = tensor_input(True)
    head = json.dumps({"inputs": [input_]}).encode()
    parts = iter([head, tensors[:1000], tensors[1000:]])
    response = server.infer("seg", parts, Inference_Header_Content_Length=str(len(head)))
    np.testing.assert_array_equal(mask_of(response.json(), b""), TRUTH)


def test_content_type_of_json_is_ignored(server: Server) -> None:
    """`curl -d`, for example, declares a form."""
    for content_type in ("application/json", "application/x-www-form-urlencoded", "text/plain"):
        response = server.infer("seg", {"inputs": [tensor()]}, Content_Type=content_type)
        np.testing.assert_array_equal(mask_of(response.json(), b""), TRUTH)


def curl(server: Server, path: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("curl")
    if program is None:
        pytest.skip("curl is not installed; other tests send the same bytes")
    command = [program, "--silent", "--show-error", "--fail-with-body", "--max-time", "30", *options]
    return subprocess.run([*command, f"http://{server.address}{path}"], capture_output=True, check=False, timeout=60)


def test_curl_sends_an_encoded_image(server: Server, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(encoded(IMAGE, "JPEG", quality=95))
    sent = ["--data-binary", f"@{tmp_path / 'photo.jpg'}", "-H", "Inference-Header-Content-Length: 0"]
    completed = curl(server, "/v2/models/seg_bytes/infer", *sent, "-D", str(tmp_path / "headers"))
    assert completed.returncode == 0, completed.stderr
    headers = dict(
        line.lower().split(": ", 1) for line in (tmp_path / "headers").read_text().splitlines() if ": " in line
    )
    tensors = completed.stdout[int(headers["inference-header-content-length"]) :]
    (length,) = struct.unpack_from("<I", tensors)
    assert read(tensors[4 : 4 + length]).shape == TRUTH.shape
    compressed = curl(server, "/v2/models/seg_bytes/infer", *sent, "--compressed")
    assert compressed.stdout == completed.stdout


def test_curl_sends_json_and_gets_errors(server: Server) -> None:
    completed = curl(server, "/v2/models/seg/infer", "-d", json.dumps({"inputs": [tensor(IMAGE[:3, :4])]}))
    np.testing.assert_array_equal(mask_of(json.loads(completed.stdout), b""), TRUTH[:3, :4])
    rejected = curl(server, "/v2/models/seg/infer", "-d", "{}")
    assert rejected.returncode == 22
    assert "inputs" in json.loads(rejected.stdout)["error"]
