"""HTTP libraries, each in the ways in which its users send files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import numpy as np
import numpy.typing as npt
import pytest
import requests

from service.api.uvicorn_server import make_server
from service.state import State
from tests.service.conftest import TEST_KEY, read
from tests.service.tiny_bundle import COLORS, nearest, picture

MASK = nearest(picture(), COLORS)
BEARER = {"Authorization": f"Bearer {TEST_KEY}"}

NODE = """
import { openAsBlob } from 'node:fs'
import { readFile } from 'node:fs/promises'

const [url, photo] = process.argv.slice(2)
const form = new FormData()
form.append('file', await openAsBlob(photo), 'photo.png')
const stream = new Blob([await readFile(photo)]).stream()
for (const init of [{ body: await readFile(photo) }, { body: form }, { body: stream, duplex: 'half' }]) {
    const response = await fetch(url, { method: 'POST', ...init })
    const bytes = new Uint8Array(await response.arrayBuffer())
    console.log(response.status, response.headers.get('content-type'), Buffer.from(bytes).toString('base64'))
}
"""


def check(mask: bytes) -> None:
    found: npt.NDArray[np.uint8] = read(mask)
    np.testing.assert_array_equal(found, MASK)


def test_requests(url: str, photo: Path) -> None:
    with requests.Session() as session:
        segment = f"{url}/v1/segment"
        with photo.open("rb") as file:
            check(session.post(segment, data=file, timeout=30).content)
        with photo.open("rb") as file:
            check(session.post(segment, files={"file": file}, timeout=30).content)
        check(session.post(segment, data=iter([photo.read_bytes()]), timeout=30).content)
        wrong = session.post(segment, json={"image": "..."}, timeout=30)
        assert (wrong.status_code, wrong.json()["detail"][:18]) == (415, "The upload is JSON")
        described = session.post(
            segment, data=photo.read_bytes(), headers={"Accept": "application/json"} | BEARER, timeout=30
        )
        assert (described.json()["width"], described.json()["height"]) == MASK.shape[::-1]


def test_httpx(url: str, photo: Path) -> None:
    with httpx.Client(base_url=url, headers=BEARER) as client:
        check(client.post("/v1/segment", content=photo.read_bytes()).raise_for_status().content)
        with photo.open("rb") as file:
            check(client.post("/v1/segment", content=file).raise_for_status().content)
        with photo.open("rb") as file:
            check(client.post("/v1/segment", files={"file": file}).raise_for_status().content)
        assert client.get("/v1/models").json()["serving"]
        lines = client.post("/v1/segment/batch", files=[("file", photo.read_bytes())] * 3).text.splitlines()
        assert len(lines) == 3


async def test_aiohttp(url: str, photo: Path) -> None:
    async with aiohttp.ClientSession(url, headers=BEARER) as session:
        ways: list[dict[str, Any]] = [
            {"data": photo.open("rb")},
            {"data": {"file": photo.open("rb")}},
            {"data": photo.open("rb"), "compress": "gzip"},
        ]
        for way in ways:
            async with session.post("/v1/segment", **way) as response:
                check(await response.read())
        async with session.post("/v1/segment", data=b"no image") as response:
            assert (response.status, (await response.json())["status"]) == (415, 415)


def test_fetch_of_node(url: str, photo: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed")
    script = photo.with_name("fetch.mjs")
    script.write_text(NODE)
    command = [node, "--no-warnings", str(script), f"{url}/v1/segment", str(photo)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    lines = [line.split() for line in ended.stdout.splitlines()]
    assert [line[:2] for line in lines] == [["200", "image/png"]] * 3, ended.stderr
    assert len({line[2] for line in lines}) == 1


def test_idle_connections_outlive_those_of_load_balancers(state: State) -> None:
    """They keep theirs for 60 seconds; a request on a connection that was just closed gets 502 from them."""
    assert make_server(state).config.timeout_keep_alive > 60
