"""The figures of the training benchmark, worked out by hand."""

from pathlib import Path

from tests.benchmarks.data_pipeline import pipeline_figures
from tests.benchmarks.synthetic_dataset import write_dataset
from tests.benchmarks.train_step import arguments, text


def test_bytes_per_image_to_the_device(tmp_path: Path) -> None:
    # Bytes per pixel. Plain, labelled: 12 + 8; unlabelled: 3 views of 12, padding of 8, two boxes of 4.
    figures = pipeline_figures(write_dataset(tmp_path / "dataset", 2), 32)
    assert figures["plain"]["device_bytes"] == 32 * 32 * ((12 + 8) + (36 + 8 + 8)) / 2
    assert figures["ours"]["device_bytes"] < figures["plain"]["device_bytes"] / 4


def test_table_has_the_ratios() -> None:
    data = {"plain": {"images_per_s_per_core": 5.0, "device_bytes": 4e6}, "ours": {"images_per_s_per_core": 20.0}}
    found = {
        "machine": "a machine",
        "setting": vars(arguments(["--device", "cpu"])),
        "images_per_s": {"plain": 2.0, "ours": 5.0},
        "peak_bytes": {"plain": 4 * 2**30, "ours": 2**30},
        "data": {224: {"plain": data["plain"], "ours": data["ours"] | {"device_bytes": 1e6}}},
        "limit": {
            "flop": 2e12,
            "bytes": 1e9,
            "flop_per_s": 1e12,
            "bytes_per_s": 1e10,
            "precision": "float32",
            "limit_s": 2.0,
            "step_s": 4.0,
        },
    }
    output = text(found)
    assert "ViT-S, crop 224, 4+4 images" in output
    assert "| images/s | 2.00 | 5.00 | 2.50 |" in output
    assert "| peak memory, GiB | 4.00 | 1.00 | 0.25 |" in output
    assert "| crop 224, data alone, images/s per core | 5.00 | 20.00 | 4.00 |" in output
    assert "| crop 224, data alone, MB per image to the device | 4.00 | 1.00 | 0.25 |" in output
    assert "50% of the machine's peak" in output
