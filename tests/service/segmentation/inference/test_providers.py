"""Execution providers by device, with a fake onnxruntime for devices that this machine lacks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.errors import Unavailable
from service.segmentation.inference.providers import CPU, CUDA, TENSORRT, check_provider, providers


def runtime(*available: str) -> Any:
    """An onnxruntime that was built with these providers."""
    return SimpleNamespace(get_available_providers=lambda: [*available, CPU], preload_dlls=lambda: None)


def test_auto_uses_the_gpu_if_there_is_one() -> None:
    assert [name for name, _ in providers(runtime(), "auto")] == [CPU]
    assert [name for name, _ in providers(runtime(TENSORRT, CUDA), "auto")] == [CUDA, CPU]
    assert [name for name, _ in providers(runtime(TENSORRT, CUDA), "cpu")] == [CPU]


def test_tensorrt_gets_the_options_of_the_manifest_and_a_cache_folder(tmp_path: Path) -> None:
    options = {"trt_profile_min_shapes": "image:1x1x1x3"}
    first, *others = providers(runtime(TENSORRT, CUDA), "tensorrt", tensorrt=options, cache=tmp_path / "a" / "key")
    assert first[0] == TENSORRT
    assert first[1]["trt_profile_min_shapes"] == "image:1x1x1x3"
    assert Path(first[1]["trt_engine_cache_path"]).is_dir()
    assert [name for name, _ in others] == [CUDA, CPU]


@pytest.mark.parametrize(("device", "available"), [("cuda", ()), ("tensorrt", (CUDA,))])
def test_a_missing_provider_is_rejected(device: Any, available: tuple[str, ...]) -> None:
    with pytest.raises(Unavailable, match="but this onnxruntime has only"):
        providers(runtime(*available), device)


def test_a_silent_fallback_is_detected() -> None:
    fell_back = SimpleNamespace(get_providers=lambda: [CPU])
    with pytest.raises(Unavailable, match="fell back to CPUExecutionProvider"):
        check_provider(fell_back, "cuda")
    assert check_provider(fell_back, "auto") == CPU
