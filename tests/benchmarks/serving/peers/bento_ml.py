"""BentoML: one worker process per core with one thread, and a limit on concurrent requests.

The limit is split among the workers, and connections are distributed unevenly over them: 32 per worker is needed to
accept 32 clients. The access log is off, as BentoML's documentation recommends for speed.
"""

from typing import Annotated

import bentoml  # type: ignore[import-not-found, unused-ignore]
from bentoml.validators import ContentType  # type: ignore[import-not-found, unused-ignore]
from PIL.Image import Image

from tests.benchmarks.serving.peers.segmentation import cores, encode, infer, open_session, pixels, read_palette


@bentoml.service(  # type: ignore[untyped-decorator, unused-ignore]
    workers=cores(),
    threads=1,
    traffic={"max_concurrency": 32 * cores(), "timeout": 30},
    logging={"access": {"enabled": False}},
)
class Segmenter:
    def __init__(self) -> None:
        self.session, self.palette = open_session(1), read_palette()

    @bentoml.api(route="/segment")  # type: ignore[untyped-decorator, unused-ignore]
    def segment(self, image: Image, /) -> Annotated[bytes, ContentType("image/png")]:
        return encode(infer(self.session, pixels(image)), self.palette)
