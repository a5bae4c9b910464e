"""Run by test_own_environment.py: kserve's client, with JSON and with binary outputs."""

from __future__ import annotations

import asyncio
import json
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


async def main(url: str) -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=30))
    found = {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model": await client.is_model_ready(url, "seg"),
    }
    image = np.array([json.load(sys.stdin)], np.uint8)
    for binary in (False, True):
        tensor = InferInput("image", list(image.shape), "UINT8")
        tensor.set_data_from_numpy(image, binary_data=binary)
        outputs = [RequestedOutput("mask", {"binary_data": True})] if binary else []
        request = InferRequest("seg", [tensor], request_outputs=outputs)
        answer = await client.infer(url, request, model_name="seg")
        (mask,) = [output for output in answer.outputs if output.name == "mask"]
        found[f"mask, binary {binary}"] = mask.as_numpy().tolist()
    try:
        await client.infer(url, request, model_name="nothing")
    except httpx.HTTPStatusError as error:
        found["error"] = str(error)
    sys.stdout.write(json.dumps(found))


asyncio.run(main(sys.argv[1]))
