"""For which sizes an engine is built: TensorRT's optimisation profile, and how its tools are told of it."""

# N images, H W pixels

from dataclasses import dataclass

from exporter.manifest import TensorRT
from exporter.runtime import SPEED_SIZE

Size = tuple[int, int, int]
"""N, H, W."""

CHANNELS = 3
IMAGE = "image"
MOST_IMAGES = 4
LARGEST, LARGEST_NATIVE = 2048, 1024
"""Sides of the largest image, pixels: where the graph resizes it, and where the network sees it as it is."""


PREFIX = "trt_engine_cache_prefix"
SETTINGS = {
    "trt_fp16_enable": "1",
    # The mean and variance of layer norms overflow in fp16.
    "trt_layer_norm_fp32_fallback": "1",
    "trt_engine_cache_enable": "1",
    "trt_timing_cache_enable": "1",
}
OPTIONS = frozenset({*SETTINGS, PREFIX, *(f"trt_profile_{name}_shapes" for name in ("min", "opt", "max"))})
"""Of onnxruntime's TensorRT provider: those that a manifest may set."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The sizes that an engine takes, and the one that it is tuned for."""

    minimum: Size
    optimum: Size
    maximum: Size

    def __post_init__(self) -> None:
        for low, best, high in zip(self.minimum, self.optimum, self.maximum, strict=True):
            if not 1 <= low <= best <= high:
                raise ValueError(
                    f"sizes {_text(self.minimum)} to {_text(self.maximum)}, best {_text(self.optimum)}: none may be "
                    "below 1, and each side must grow from the first to the last; give --min, --opt, --max"
                )

    def with_sizes(self, minimum: Size | None, optimum: Size | None, maximum: Size | None) -> "Profile":
        """The same with the sizes that are given; the optimum, if it is not, moves to between the others."""
        low, high = minimum or self.minimum, maximum or self.maximum
        between = [max(least, min(best, most)) for least, best, most in zip(low, self.optimum, high, strict=True)]
        return Profile(low, optimum or (between[0], between[1], between[2]), high)

    @property
    def shapes(self) -> dict[str, tuple[int, int, int, int]]:
        """min, opt and max as shapes [N, H, W, 3]."""
        named = {"min": self.minimum, "opt": self.optimum, "max": self.maximum}
        return {name: (*size, CHANNELS) for name, size in named.items()}

    @property
    def words(self) -> dict[str, str]:
        """The same as trtexec and onnxruntime write it: `image:1x384x512x3`."""
        return {name: f"{IMAGE}:{'x'.join(map(str, shape))}" for name, shape in self.shapes.items()}


def usual_size(long_side: int) -> tuple[int, int]:
    """Height and width of the image that a graph most likely gets; long_side is the manifest's."""
    return (long_side * 3 // 4, long_side) if long_side else SPEED_SIZE


def usual_profile(long_side: int) -> Profile:
    """From 1x1 pixels, best at one image of the usual size, up to a batch of large ones.

    Args:
        long_side: the graph's; 0 = the network sees images at their own size, and its memory grows with them.
    """
    best = usual_size(long_side)
    largest = max(LARGEST if long_side else LARGEST_NATIVE, *best)
    return Profile((1, 1, 1), (1, *best), (MOST_IMAGES, largest, largest))


def parse_size(text: str) -> Size:
    """`4x1080x1920` as N, H, W. Raises ValueError."""
    parts = text.lower().split("x")
    if len(parts) != len(("N", "H", "W")) or not all(part.isdecimal() for part in parts):
        raise ValueError(f"{text!r}: give images x height x width, as 4x1080x1920")
    images, height, width = map(int, parts)
    return images, height, width


def for_onnxruntime(file: str, sha256: str, profile: Profile) -> TensorRT:
    """What onnxruntime's TensorRT provider is to be told of a graph.

    Engines are kept under the key, which is another one for another graph or profile; whoever runs it adds
    trt_engine_cache_path and trt_timing_cache_path, folders of its own.
    """
    key = f"{sha256[:16]}_{'_'.join(_text(size) for size in (profile.minimum, profile.optimum, profile.maximum))}"
    options = {f"trt_profile_{name}_shapes": words for name, words in profile.words.items()}
    return TensorRT(file=file, cache_key=key, provider_options={**options, **SETTINGS, PREFIX: key})


def _text(size: Size) -> str:
    return "x".join(map(str, size))
