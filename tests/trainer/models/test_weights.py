"""Weights from files with timm's or Meta's names; missing and unknown weights are rejected."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from trainer.models.encoders.encoder import Encoder, EncoderError, build_encoder
from trainer.models.encoders.published_names import timm_names
from trainer.models.encoders.weights import load_encoder_weights

State = dict[str, Tensor]
CONVNEXT: tuple[str, dict[str, Any]] = ("convnext_atto", {})
DINOV3: dict[str, Any] = {"depth": 2, "embed_dim": 24, "num_heads": 2}


def whole(name: str, options: dict[str, Any] | None = None) -> State:
    """State dict of timm's classifier with random weights."""
    torch.manual_seed(0)
    state: State = timm.create_model(name, **(options or {})).state_dict()
    return {key: torch.rand_like(value) if value.is_floating_point() else value for key, value in state.items()}


def loaded(name: str, options: dict[str, Any], file: Path) -> Encoder:
    torch.manual_seed(1)
    encoder = build_encoder(name, options)
    load_encoder_weights(encoder, name, str(file))
    return encoder


def save(state: State, file: Path) -> Path:
    save_file(state, file) if file.suffix == ".safetensors" else torch.save(state, file)
    return file


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", ["convnext_atto", "pvt_v2_b0", "resnet18", "efficientnet_lite0"])
def test_timm_file_fills_every_stage(tmp_path: Path, name: str, suffix: str) -> None:
    state = whole(name)
    encoder = loaded(name, {}, save(state, tmp_path / f"weights{suffix}"))
    flat = {key.replace(".", "_", 1): value for key, value in state.items()} | state
    own = {key.removeprefix("stages."): value for key, value in encoder.named_parameters()}
    assert all(torch.equal(value, flat[key]) for key, value in own.items())


@pytest.mark.parametrize(
    "name", ["vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3_qkvb"]
)
def test_timm_file_fills_a_vit(tmp_path: Path, name: str) -> None:
    options = {"depth": 2}
    encoder = loaded(name, options, save(whole(name, options), tmp_path / "weights.safetensors"))
    state = whole(name, options)
    assert all(torch.equal(value, state[key.removeprefix("vit.")]) for key, value in encoder.named_parameters())


def test_unknown_weight_is_rejected_by_name(tmp_path: Path) -> None:
    state = whole("resnet18") | {"surprise.weight": torch.zeros(1)}
    with pytest.raises(EncoderError, match=r"1 weights \(surprise.weight\) are not of this encoder"):
        loaded("resnet18", {}, save(state, tmp_path / "weights.pth"))


def test_missing_weights_are_listed(tmp_path: Path) -> None:
    state = {key: value for key, value in whole("resnet18").items() if not key.startswith("layer4")}
    with pytest.raises(EncoderError, match=r"25 weights \(layer4.0.conv1.weight, .*, \.\.\.\) are missing"):
        loaded("resnet18", {}, save(state, tmp_path / "weights.pth"))


def test_weight_of_another_shape_is_rejected(tmp_path: Path) -> None:
    state = whole("resnet18") | {"conv1.weight": torch.zeros(64, 1, 7, 7)}
    with pytest.raises(EncoderError, match=r"conv1\.weight"):
        loaded("resnet18", {}, save(state, tmp_path / "weights.pth"))


def test_file_with_or_without_classifier_is_accepted(tmp_path: Path) -> None:
    state = whole("resnet18")
    bare = {key: value for key, value in state.items() if not key.startswith("fc.")}
    with_head = loaded("resnet18", {}, save(state, tmp_path / "whole.pth")).state_dict()
    without = loaded("resnet18", {}, save(bare, tmp_path / "bare.pth")).state_dict()
    assert all(torch.equal(with_head[key], without[key]) for key in with_head)


def test_dinov2_with_registers_needs_the_encoder_with_registers(tmp_path: Path) -> None:
    name, options = "vit_small_patch14_dinov2", {"depth": 2}
    state = whole(name, options) | {"mask_token": torch.zeros(1, 384), "register_tokens": torch.zeros(1, 4, 384)}
    with pytest.raises(EncoderError, match="reg_token"):
        loaded(name, options, save(state, tmp_path / "weights.pth"))


def dinov3_of_meta(bias: float) -> State:
    """DINOv3's weights under Meta's names, with 2 blocks of width 24 and a gated MLP."""
    torch.manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, 24),
        "storage_tokens": (1, 4, 24),
        "mask_token": (1, 24),
        "patch_embed.proj.weight": (24, 3, 16, 16),
        "patch_embed.proj.bias": (24,),
        "rope_embed.periods": (3,),
        "norm.weight": (24,),
        "norm.bias": (24,),
    }
    for block in (f"blocks.{index}." for index in range(2)):
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma"):
            shapes[block + name] = (24,)
        for name, (out, inner) in {
            "attn.qkv": (72, 24),
            "attn.proj": (24, 24),
            "mlp.w1": (96, 24),
            "mlp.w2": (96, 24),
            "mlp.w3": (24, 96),
        }.items():
            shapes |= {f"{block}{name}.weight": (out, inner), f"{block}{name}.bias": (out,)}
        shapes[f"{block}attn.qkv.bias_mask"] = (72,)
    state = {name: torch.rand(shape) for name, shape in shapes.items()}
    return state | {name: value * bias for name, value in state.items() if name.endswith("qkv.bias")}


def test_dinov3_with_meta_names_is_loaded(tmp_path: Path) -> None:
    options = DINOV3 | {"mlp_ratio": 4.0}
    meta = dinov3_of_meta(bias=1.0)
    encoder = loaded("vit_huge_plus_patch16_dinov3_qkvb", options, save(meta, tmp_path / "meta.pth"))
    own = {key.removeprefix("vit."): value for key, value in encoder.state_dict().items()}
    assert torch.equal(own["reg_token"], meta["storage_tokens"])
    assert torch.equal(own["blocks.1.gamma_2"], meta["blocks.1.ls2.gamma"])
    assert torch.equal(own["blocks.1.mlp.fc1_g.weight"], meta["blocks.1.mlp.w1.weight"])
    assert torch.equal(own["blocks.1.mlp.fc2.bias"], meta["blocks.1.mlp.w3.bias"])
    assert torch.equal(own["blocks.0.attn.q_bias"], meta["blocks.0.attn.qkv.bias"][:24])
    assert torch.equal(own["blocks.0.attn.v_bias"], meta["blocks.0.attn.qkv.bias"][48:])


def test_dinov3_biases_must_be_zero_if_the_encoder_has_none(tmp_path: Path) -> None:
    """The biases of Meta's larger models are all zero; timm's networks leave them out."""
    name, options = "vit_huge_plus_patch16_dinov3", DINOV3 | {"mlp_ratio": 4.0}
    loaded(name, options, save(dinov3_of_meta(bias=0.0), tmp_path / "zero.pth"))
    with pytest.raises(EncoderError, match="_qkvb"):
        loaded(name, options, save(dinov3_of_meta(bias=1.0), tmp_path / "not_zero.pth"))


def test_segment_anything_with_meta_names_is_loaded(tmp_path: Path) -> None:
    options = {"depth": 2, "embed_dim": 24, "num_heads": 2, "img_size": 64}
    state = whole("samvit_base_patch16", options | {"num_classes": 0})
    meta = {
        f"image_encoder.{key.replace('mlp.fc', 'mlp.lin')}": value for key, value in state.items() if "head" not in key
    }
    meta |= {"prompt_encoder.not_a_point_embed.weight": torch.zeros(1, 256)}
    encoder = loaded("samvit_base_patch16", options, save(meta, tmp_path / "sam_vit_b.pth"))
    assert all(torch.equal(value, state[key.removeprefix("vit.")]) for key, value in encoder.state_dict().items())


def test_names_of_other_files_are_unchanged() -> None:
    state = {"conv1.weight": torch.zeros(1)}
    assert timm_names(state, {}) == state


def test_loading_weights_does_not_change_the_random_state(tmp_path: Path) -> None:
    encoder = build_encoder("resnet18")
    file = save(whole("resnet18"), tmp_path / "weights.pth")
    torch.manual_seed(3)
    load_encoder_weights(encoder, "resnet18", str(file))
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x02\xff", b"PK\x03\x04 truncated"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_without_tensors_are_rejected(tmp_path: Path, content: bytes, suffix: str) -> None:
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(content)
    with pytest.raises(EncoderError, match="cannot be read"):
        loaded("resnet18", {}, file)
