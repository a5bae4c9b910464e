"""BentoML: a worker process a core, of one thread each, with its bound on requests at one time.

The bound is split among the workers, and connections are not spread evenly over them: 32 a worker is what keeps it from
refusing 32 clients. The access log is off, as its own advice for speed has it.
"""

from typing import Annotated

import bentoml  # type: ignore[import-not-found, unused-ignore]
from bentoml.validators import ContentType  # type: ignore[import-not-found, unused-ignore]
from PIL.Image import Image

from tests.benchmarks.serving.peers.work import cores, encode, infer, open_session, pixels, read_palette


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
