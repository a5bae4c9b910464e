"""Plain FastAPI: a `def` route, which runs in a thread pool, and one session with all threads."""

import os
from typing import Annotated

import uvicorn
from fastapi import Body, FastAPI, Response

from tests.benchmarks.serving.peers.segmentation import decode, encode, infer, open_session, read_palette

app = FastAPI()
session = open_session(None)
palette = read_palette()


@app.post("/segment")
def segment(data: Annotated[bytes, Body(media_type="image/jpeg")]) -> Response:
    mask_HW = infer(session, decode(data))
    return Response(encode(mask_HW, palette), media_type="image/png")


@app.get("/health")
def health() -> str:
    return "ok"


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["BENCH_PORT"]))
