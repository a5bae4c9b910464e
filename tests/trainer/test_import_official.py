"""Import of the authors' checkpoints: equal predictions, rejected files, and use of the result."""

import argparse
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.trainer.published_network import BASE, GIANT, LARGE, SMALL, Size, logits, random_state
from trainer.__main__ import main
from trainer.checkpoint import CheckpointError, load
from trainer.commands import import_official as command
from trainer.data.classes_file import PUBLIC, read_classes
from trainer.models.encoders.plain_vit import PlainViT
from trainer.models.segmenter import build_segmenter
from trainer.official_checkpoint import ENCODERS, PUBLISHED, _fill, _model, import_official

State = dict[str, Tensor]
CLASSIFIER = ("head.scratch.output_conv.2.weight", "head.scratch.output_conv.2.bias")


@pytest.fixture(scope="module")
def state() -> State:
    """Random weights of the authors' network with DINOv2-S and the 21 classes of Pascal."""
    torch.manual_seed(0)
    return random_state(SMALL, 21)


@pytest.fixture(scope="module")
def zero_state(state: State) -> State:
    """The same shapes with zeros, for tests that do not depend on values; the file has a few kilobytes."""
    return {name: torch.zeros(()).expand(tensor.shape) for name, tensor in state.items()}


def write(path: Path, teacher: State, student: State | None = None, **more: Any) -> Path:
    """Write a file in the format of the authors' training."""
    content = {
        "model_ema": {f"module.{name}": tensor for name, tensor in teacher.items()},
        "model": {f"module.{name}": tensor for name, tensor in (student or teacher).items()},
        "optimizer": {"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": [{"lr": 5e-6, "params": [0]}]},
        "epoch": 59,
        "previous_best": np.float64(85.5),
        "previous_best_ema": np.float64(86.25),
        "best_epoch": 40,
        "best_epoch_ema": 41,
    }
    torch.save(content | more, path)
    return path


def with_classes(state: State, count: int) -> State:
    return state | {name: torch.randn(count, *state[name].shape[1:]) for name in CLASSIFIER}


def test_imported_network_equals_the_reference(tmp_path: Path, state: State) -> None:
    import_official(write(tmp_path / "best.pth", state), tmp_path / "imported.safetensors", dataset="pascal")
    model = load(tmp_path / "imported.safetensors").model
    for size in ((42, 70), (56, 28)):
        image_B3HW = torch.rand(2, 3, *size)
        with torch.no_grad():
            found = model(image_B3HW)
            expected = logits(state, SMALL, (image_B3HW - model.mean) / model.std)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())
        assert expected.std() > 0.1, "otherwise any result would be close"


def test_metadata_of_the_imported_checkpoint(tmp_path: Path, zero_state: State) -> None:
    import_official(write(tmp_path / "best.pth", zero_state), tmp_path / "imported.safetensors", dataset="pascal")
    checkpoint = load(tmp_path / "imported.safetensors")
    assert checkpoint.taxonomy.names[:2] == ("background", "aeroplane")
    assert checkpoint.recipe["model"]["encoder"] == "vit_small_patch14_dinov2"
    assert checkpoint.recipe["model"]["features"] == 64
    assert checkpoint.recipe["inference"]["window"] == [0, 0]
    assert "86.25% mIoU over 21 of 21 classes" in checkpoint.metrics["reported"]
    assert "miou" not in checkpoint.metrics, "this code did not measure it"


def test_cityscapes_recipe_has_a_sliding_window(tmp_path: Path, zero_state: State) -> None:
    file = write(tmp_path / "best.pth", with_classes(zero_state, 19))
    import_official(file, tmp_path / "new" / "imported.safetensors", dataset="cityscapes")
    inference = load(tmp_path / "new" / "imported.safetensors").recipe["inference"]
    assert inference["window"] == [798, 798]
    assert inference["window_stride"] == pytest.approx(2 / 3)


def test_teacher_is_the_default_and_student_can_be_chosen(tmp_path: Path, state: State) -> None:
    bias = CLASSIFIER[1]
    file = write(tmp_path / "best.pth", state, state | {bias: state[bias] + 1})
    teacher = import_official(file, tmp_path / "teacher.safetensors", dataset="pascal")
    student = import_official(file, tmp_path / "student.safetensors", dataset="pascal", weights="student")
    assert torch.equal(teacher.state_dict()["head.classify.2.bias"], state[bias])
    assert torch.equal(student.state_dict()["head.classify.2.bias"], state[bias] + 1)
    assert "85.50" in load(tmp_path / "student.safetensors").metrics["reported"]


def test_classes_of_other_data_are_read_from_classes_toml(tmp_path: Path, zero_state: State) -> None:
    toml = "".join(f'[[classes]]\nname = "c{index}"\ncolor = [{index}, 0, 0]\n' for index in range(7))
    (tmp_path / "classes.toml").write_text(toml)
    file = write(tmp_path / "best.pth", with_classes(zero_state, 7))
    import_official(file, tmp_path / "imported.safetensors", classes=tmp_path / "classes.toml")
    assert len(load(tmp_path / "imported.safetensors").taxonomy) == 7


def test_files_of_numpy_1_are_read(tmp_path: Path, zero_state: State) -> None:
    file = write(tmp_path / "new.pth", zero_state)
    with zipfile.ZipFile(file) as new, zipfile.ZipFile(tmp_path / "old.pth", "w") as old:
        for entry in new.infolist():
            content = new.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert b"numpy._core" in content
                content = content.replace(b"numpy._core", b"numpy.core")
            old.writestr(entry, content)
    # Without torch's alignment, the file cannot be memory-mapped, but must still be read.
    import_official(tmp_path / "old.pth", tmp_path / "imported.safetensors", dataset="pascal")
    assert "86.25" in load(tmp_path / "imported.safetensors").metrics["reported"]


@pytest.mark.parametrize("size", [SMALL, BASE, LARGE, GIANT], ids=["small", "base", "large", "giant"])
def test_every_encoder_size_is_recognized_and_uses_every_weight(size: Size) -> None:
    file = Path("best.pth")
    with torch.device("meta"):
        published = random_state(size, 19)
        model = _model(file, published)
        segmenter = build_segmenter(model, 19)
    assert (model.features, model.projections) == (size.features, size.projections)
    assert isinstance(segmenter.encoder, PlainViT)
    assert segmenter.encoder.output_blocks == size.output_blocks
    _fill(file, segmenter, published)


def without(state: State, name: str) -> State:
    return {key: tensor for key, tensor in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "dataset", "message"),
    [
        (lambda s: s | {"head.surprise.weight": torch.zeros(1)}, "pascal", "head.surprise.weight"),
        (lambda s: s | {"backbone.register_tokens": torch.zeros(1)}, "pascal", "backbone.register_tokens"),
        (lambda s: without(s, "backbone.blocks.7.ls1.gamma"), "pascal", "backbone.blocks.7.ls1.gamma"),
        (lambda s: without(s, "head.scratch.refinenet2.out_conv.bias"), "pascal", "refinenet2.out_conv.bias"),
        (lambda s: without(s, "backbone.cls_token"), "pascal", "backbone.cls_token is missing"),
        (lambda s: without(s, CLASSIFIER[0]), "pascal", "output_conv.2.weight is missing"),
        (lambda s: s | {"backbone.cls_token": torch.zeros(1, 1, 100)}, "pascal", "has 100 channels"),
        (lambda s: s | {"backbone.pos_embed": torch.zeros(1, 257, 384)}, "pascal", "pos_embed"),
        (lambda s: s, "cityscapes", "--dataset pascal"),
        (lambda s: with_classes(s, 4), "coco", "has 4 classes, coco has 81"),
    ],
)
def test_weight_that_does_not_fit_is_rejected_by_name(
    tmp_path: Path, zero_state: State, change: Callable[[State], State], dataset: str, message: str
) -> None:
    file = write(tmp_path / "best.pth", change(zero_state))
    with pytest.raises(CheckpointError, match=message):
        import_official(file, tmp_path / "imported.safetensors", dataset=dataset)
    assert not (tmp_path / "imported.safetensors").exists()


def test_supervised_checkpoint_has_only_student_weights(tmp_path: Path, zero_state: State) -> None:
    file = tmp_path / "best.pth"
    torch.save({"model": {f"module.{name}": tensor for name, tensor in zero_state.items()}, "epoch": 3}, file)
    with pytest.raises(CheckpointError, match="--weights student"):
        import_official(file, tmp_path / "imported.safetensors", dataset="pascal")
    import_official(file, tmp_path / "imported.safetensors", dataset="pascal", weights="student")
    assert load(tmp_path / "imported.safetensors").metrics == {}


class Evil:
    """An object that creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (self.target,)  # type: ignore[return-value]  # called with a path only


def test_file_that_would_run_code_is_rejected(tmp_path: Path, zero_state: State) -> None:
    target = tmp_path / "was_here"
    file = write(tmp_path / "best.pth", {"backbone.cls_token": torch.zeros(1)}, extra=Evil(target))
    with pytest.raises(CheckpointError, match="plain values alone"):
        import_official(file, tmp_path / "imported.safetensors", dataset="pascal")
    assert not target.exists()


@pytest.mark.parametrize("content", [{"weights": 1}, [1, 2]])
def test_file_without_model_is_rejected(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="UniMatch V2"):
        import_official(tmp_path / "other.pth", tmp_path / "imported.safetensors", dataset="pascal")


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x02\xff", b"PK\x03\x04 truncated"])
def test_file_that_torch_cannot_read_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.pth").write_bytes(content)
    for name in ("other.pth", "none.pth"):
        with pytest.raises(CheckpointError, match="cannot be read"):
            import_official(tmp_path / name, tmp_path / "imported.safetensors", dataset="pascal")


def test_class_tables_have_the_published_number_of_classes() -> None:
    for known in PUBLISHED.values():
        taxonomy, _ = read_classes(PUBLIC / f"{known.classes}.toml")
        assert len(taxonomy) == known.count
    assert list(ENCODERS) == [384, 768, 1024, 1536]


def run_command(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add(parser)
    return int(command.run(parser.parse_args(arguments)))


def test_the_command_imports_and_the_checkpoint_evaluates(
    tmp_path: Path, state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "best.pth", state)
    out = tmp_path / "imported.safetensors"
    assert run_command(str(file), "--dataset", "pascal", "--out", str(out)) == 0
    assert "21 classes, 24.7 M parameters, ema weights" in capsys.readouterr().out
    write_pascal_folder(tmp_path / "data")
    assert main(["evaluate", str(out), "--data", str(tmp_path / "data"), "--json"]) == 0
    assert 0 <= json.loads(capsys.readouterr().out.splitlines()[-1])["miou"] <= 1


def write_pascal_folder(root: Path) -> None:
    """Write two small noise images with masks of Pascal's classes, in the folder layout."""
    for folder in ("images", "masks", "splits"):
        (root / folder).mkdir(parents=True)
    (root / "classes.toml").write_bytes((PUBLIC / "voc.toml").read_bytes())
    (root / "splits" / "val.txt").write_text("one\ntwo\n")
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(root / f"images/{name}.png")
        Image.fromarray(rng.integers(0, 21, (40, 60), dtype=np.uint8)).save(root / f"masks/{name}.png")


@pytest.mark.slow
def test_the_imported_checkpoint_exports(tmp_path: Path, state: State) -> None:
    from exporter.__main__ import main as export

    out = tmp_path / "imported.safetensors"
    import_official(write(tmp_path / "best.pth", state), out, dataset="pascal")
    assert export(["export", str(out), "--out", str(tmp_path / "bundle")]) == 0
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert [entry["name"] for entry in manifest["classes"]][:2] == ["background", "aeroplane"]
