"""TensorRT's optimisation profile: the image sizes that an engine accepts."""

# N images, H W pixels

from dataclasses import dataclass

from exporter.manifest import TensorRT
from exporter.runtime import SPEED_SIZE

Size = tuple[int, int, int]
"""N, H, W."""

IMAGE = "image"
MAX_BATCH_SIZE = 4
MAX_SIDE, MAX_NATIVE_SIDE = 2048, 1024
"""Largest height and width, pixels, if the graph resizes images and if the network runs at native size."""

PREFIX = "trt_engine_cache_prefix"
SETTINGS = {
    "trt_fp16_enable": "1",
    # The mean and variance of layer norms overflow in fp16.
    "trt_layer_norm_fp32_fallback": "1",
    "trt_engine_cache_enable": "1",
    "trt_timing_cache_enable": "1",
}
OPTIONS = frozenset({*SETTINGS, PREFIX, *(f"trt_profile_{name}_shapes" for name in ("min", "opt", "max"))})
"""Options of onnxruntime's TensorRT provider that a manifest may set."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Smallest and largest size of an engine, and the optimum that it is tuned for."""

    minimum: Size
    optimum: Size
    maximum: Size

    def __post_init__(self) -> None:
        for low, best, high in zip(self.minimum, self.optimum, self.maximum, strict=True):
            if not 1 <= low <= best <= high:
                raise ValueError(
                    f"sizes must be at least 1 and ordered min <= opt <= max in each dimension, and they are "
                    f"{_text(self.minimum)}, {_text(self.optimum)}, {_text(self.maximum)}; give --min, --opt, --max"
                )

    def with_sizes(self, minimum: Size | None, optimum: Size | None, maximum: Size | None) -> "Profile":
        """Replace the sizes that are not None; clip the optimum if it is not given."""
        low, high = minimum or self.minimum, maximum or self.maximum
        clipped = [max(least, min(best, most)) for least, best, most in zip(low, self.optimum, high, strict=True)]
        return Profile(low, optimum or (clipped[0], clipped[1], clipped[2]), high)

    @property
    def shapes(self) -> dict[str, tuple[int, int, int, int]]:
        """min, opt and max as shapes [N, H, W, 3]."""
        named = {"min": self.minimum, "opt": self.optimum, "max": self.maximum}
        return {name: (*size, 3) for name, size in named.items()}

    @property
    def arguments(self) -> dict[str, str]:
        """min, opt and max as arguments of trtexec and onnxruntime: `image:1x384x512x3`."""
        return {name: f"{IMAGE}:{_text(shape)}" for name, shape in self.shapes.items()}


def usual_size(long_side: int) -> tuple[int, int]:
    """Height and width of a typical image, pixels; `long_side` is the manifest's."""
    return (long_side * 3 // 4, long_side) if long_side else SPEED_SIZE


def usual_profile(long_side: int) -> Profile:
    """Return the default profile: from 1x1 pixels to a batch of large images, tuned for one image of the usual size.

    `long_side` is the manifest's, in pixels; at 0 the network runs at native size, and memory grows with the image.
    """
    best = usual_size(long_side)
    largest = max(MAX_SIDE if long_side else MAX_NATIVE_SIDE, *best)
    return Profile((1, 1, 1), (1, *best), (MAX_BATCH_SIZE, largest, largest))


def parse_size(text: str) -> Size:
    """Parse `4x1080x1920` as N, H, W. Raises ValueError."""
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise ValueError(f"{text!r} is not a size; give images x height x width, as 4x1080x1920")
    images, height, width = map(int, parts)
    return images, height, width


def for_onnxruntime(file: str, sha256: str, profile: Profile) -> TensorRT:
    """Return the options of onnxruntime's TensorRT provider for a graph.

    Each pair of graph and profile has its own key in an engine cache. The program that runs the graph adds the folders
    trt_engine_cache_path and trt_timing_cache_path.
    """
    key = f"{sha256[:16]}_{'_'.join(_text(size) for size in (profile.minimum, profile.optimum, profile.maximum))}"
    options = {f"trt_profile_{name}_shapes": shape for name, shape in profile.arguments.items()}
    return TensorRT(file=file, cache_key=key, provider_options={**options, **SETTINGS, PREFIX: key})


def _text(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
