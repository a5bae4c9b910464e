"""Optimisation profiles, and the options for onnxruntime's TensorRT provider in the manifest."""

import re
from pathlib import Path

import pytest

from exporter.bundle import read_manifest
from exporter.runtime import SPEED_SIZE
from exporter.tensorrt.profile import Profile, Size, for_onnxruntime, parse_size, usual_profile

SHA = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("long_side", "best", "largest"),
    [(0, SPEED_SIZE, (4, 1024, 1024)), (480, (360, 480), (4, 2048, 2048)), (4000, (3000, 4000), (4, 4000, 4000))],
)
def test_default_profile_starts_at_one_pixel_and_is_tuned_for_the_usual_size(
    long_side: int, best: tuple[int, int], largest: Size
) -> None:
    profile = usual_profile(long_side)
    assert profile == Profile((1, 1, 1), (1, *best), largest)


def test_optimum_is_clipped_to_the_given_sizes() -> None:
    usual = usual_profile(480)
    assert usual.with_sizes(None, None, None) == usual
    narrow = usual.with_sizes((2, 400, 16), None, (8, 600, 420))
    assert narrow == Profile((2, 400, 16), (2, 400, 420), (8, 600, 420))
    assert usual.with_sizes(None, (3, 5, 7), None).optimum == (3, 5, 7)


@pytest.mark.parametrize(
    ("low", "best", "high"),
    [((0, 1, 1), (1, 1, 1), (1, 1, 1)), ((1, 1, 1), (1, 9, 9), (1, 8, 9)), ((1, 5, 5), (1, 4, 5), (1, 8, 8))],
)
def test_unordered_sizes_are_rejected(low: Size, best: Size, high: Size) -> None:
    with pytest.raises(ValueError, match="give --min, --opt, --max"):
        Profile(low, best, high)


def test_sizes_are_parsed_and_formatted() -> None:
    assert parse_size("4x1080x1920") == parse_size("4X1080X1920") == (4, 1080, 1920)
    assert Profile((1, 1, 1), (1, 2, 3), (4, 5, 6)).arguments == {
        "min": "image:1x1x1x3",
        "opt": "image:1x2x3x3",
        "max": "image:4x5x6x3",
    }


@pytest.mark.parametrize("text", ["", "1080x1920", "1x2x3x4", "1xx3", "ax2x3", "1x-2x3", "1.5x2x3"])
def test_invalid_size_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="as 4x1080x1920"):
        parse_size(text)


def test_each_graph_and_profile_has_its_own_key() -> None:
    """Engines are cached under the key: another graph's engine must never be loaded."""
    other = usual_profile(480).with_sizes(None, None, (1, 480, 480))
    keys = {
        for_onnxruntime("model.onnx", sha, profile).cache_key
        for sha in (SHA, SHA[::-1])
        for profile in (usual_profile(480), usual_profile(0), other)
    }
    assert len(keys) == 6
    assert all(re.fullmatch(r"[0-9a-f]{16}(_\d+x\d+x\d+){3}", key) for key in keys), "valid in a file name"


@pytest.mark.parametrize(("kind", "best"), [("vit", "1x384x512x3"), ("convnet", "1x144x192x3")])
def test_manifest_has_the_options_of_the_plain_graph(kind: str, best: str, request: pytest.FixtureRequest) -> None:
    manifest = read_manifest(request.getfixturevalue(f"{kind}_bundle"))
    found = manifest.tensorrt
    assert found is not None
    assert found.file == "model.onnx"
    assert found.cache_key.startswith(manifest.artifacts[0].sha256[:16])
    options = found.provider_options
    assert options["trt_profile_min_shapes"] == "image:1x1x1x3"
    assert options["trt_profile_opt_shapes"] == f"image:{best}"
    assert options["trt_engine_cache_prefix"] == found.cache_key
    assert all(isinstance(value, str) for value in options.values())
    assert not any("path" in name for name in options), "the reader of the bundle chooses where to keep files"


def test_old_bundles_have_no_options() -> None:
    assert read_manifest(Path(__file__).parents[1] / "golden" / "bundle_v1").tensorrt is None
