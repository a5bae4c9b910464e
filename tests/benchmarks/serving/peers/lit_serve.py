"""LitServe: one worker process per core with one thread.

`timeout` is its only protection against overload: a request that waited longer gets 504 before any work is done.
One process handles HTTP; the default of one per worker was no faster on few cores and took more memory. The body is
raw, as for the other servers; a form or JSON would cost more.
"""

import os
from typing import Annotated, Any

import litserve  # type: ignore[import-not-found, unused-ignore]
from fastapi import Body, Response

from tests.benchmarks.serving.peers.segmentation import Pixels, cores, decode, encode, infer, open_session, read_palette

MAX_WAIT_S = 2.0


class Segment(litserve.LitAPI):  # type: ignore[misc, unused-ignore]
    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's
        self.session, self.palette = open_session(1), read_palette()

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]) -> Pixels:
        return decode(request)

    def predict(self, x: Pixels) -> Pixels:
        return infer(self.session, x)

    def encode_response(self, output: Pixels) -> Response:
        return Response(encode(output, self.palette), media_type="image/png")


def main() -> None:
    settings: dict[str, Any] = {"accelerator": "cpu", "workers_per_device": cores(), "timeout": MAX_WAIT_S}
    server = litserve.LitServer(Segment(api_path="/segment"), **settings)
    server.run(host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), num_api_servers=1, generate_client_file=False)


if __name__ == "__main__":
    main()
