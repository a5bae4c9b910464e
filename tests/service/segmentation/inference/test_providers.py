"""What onnxruntime is told of devices, for those that this machine has not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.errors import Unavailable
from service.segmentation.inference.providers import CPU, CUDA, TENSORRT, check_provider, providers


def runtime(*there: str) -> Any:
    """An onnxruntime that was built with these providers."""
    return SimpleNamespace(get_available_providers=lambda: [*there, CPU], preload_dlls=lambda: None)


def test_auto_takes_the_gpu_where_there_is_one() -> None:
    assert [name for name, _ in providers(runtime(), "auto")] == [CPU]
    assert [name for name, _ in providers(runtime(TENSORRT, CUDA), "auto")] == [CUDA, CPU]
    assert [name for name, _ in providers(runtime(TENSORRT, CUDA), "cpu")] == [CPU]


def test_tensorrt_gets_the_manifests_options_and_a_folder(tmp_path: Path) -> None:
    options = {"trt_profile_min_shapes": "image:1x1x1x3"}
    first, *others = providers(runtime(TENSORRT, CUDA), "tensorrt", tensorrt=options, cache=tmp_path / "a" / "key")
    assert first[0] == TENSORRT
    assert first[1]["trt_profile_min_shapes"] == "image:1x1x1x3"
    assert Path(first[1]["trt_engine_cache_path"]).is_dir()
    assert [name for name, _ in others] == [CUDA, CPU]


@pytest.mark.parametrize(("device", "there"), [("cuda", ()), ("tensorrt", (CUDA,))])
def test_what_is_demanded_and_not_there_is_refused(device: Any, there: tuple[str, ...]) -> None:
    with pytest.raises(Unavailable, match="was asked for and this onnxruntime has"):
        providers(runtime(*there), device)


def test_a_silent_fall_back_is_noticed() -> None:
    fell_back = SimpleNamespace(get_providers=lambda: [CPU])
    with pytest.raises(Unavailable, match="fell back to CPUExecutionProvider"):
        check_provider(fell_back, "cuda")
    assert check_provider(fell_back, "auto") == CPU
