"""Convert weights that Meta published for DINOv2, DINOv3 and Segment Anything to timm's names and layout.

Weights for pretraining only are left out. Unknown names are kept, so that loading reports them.
"""

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from trainer.models.encoders.encoder_base import EncoderError

State = Mapping[str, Tensor]


def timm_names(state: State, wanted: Iterable[str]) -> dict[str, Tensor]:
    """Convert a state dict with Meta's names to those `wanted` by the encoder; others are returned unchanged.

    Raises EncoderError if a bias of DINOv3 is not zero and the encoder has none.
    """
    for marker, convert in CONVERTERS.items():
        if marker in state:
            return convert(state, frozenset(wanted))
    return dict(state)


def _dinov2(state: State, _: frozenset[str]) -> dict[str, Tensor]:
    """DINOv2 (arXiv 2304.07193), also with registers (arXiv 2309.16588)."""
    renamed = _rename(state, {"mlp.w12.": "mlp.fc1.", "mlp.w3.": "mlp.fc2.", "register_tokens": "reg_token"})
    renamed.pop("mask_token", None)
    if "reg_token" in renamed:
        # With registers, timm adds the class token's position embedding to the token itself.
        position_1ND = renamed["pos_embed"]
        renamed["cls_token"] = renamed["cls_token"] + position_1ND[:, :1]
        renamed["pos_embed"] = position_1ND[:, 1:]
    return renamed


def _dinov3(state: State, wanted: frozenset[str]) -> dict[str, Tensor]:
    """DINOv3 (arXiv 2508.10104), without the rotary periods, which follow from the architecture."""
    names = {"ls1.gamma": "gamma_1", "ls2.gamma": "gamma_2", "storage_tokens": "reg_token"}
    gated = {"mlp.w1.": "mlp.fc1_g.", "mlp.w2.": "mlp.fc1_x.", "mlp.w3.": "mlp.fc2."}
    surplus = ("mask_token", "rope_embed.periods", "qkv.bias_mask", "local_cls_norm.weight", "local_cls_norm.bias")
    kept = {name: tensor for name, tensor in state.items() if not name.endswith(surplus)}
    renamed: dict[str, Tensor] = {}
    for name, tensor in _rename(kept, names | gated).items():
        if name.endswith("qkv.bias"):
            renamed |= _split_bias(name, tensor, wanted)
        else:
            renamed[name] = tensor
    return renamed


def _split_bias(name: str, bias_D: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
    """Split DINOv3's bias, masked for keys, into timm's biases of queries and values, if timm has them."""
    query, _, value = bias_D.chunk(3)
    parts = {name.replace("qkv.bias", "q_bias"): query, name.replace("qkv.bias", "v_bias"): value}
    if parts.keys() <= wanted:
        return parts
    if query.any() or value.any():
        reason = "is not zero, but this encoder has no such bias; choose the encoder of that name with _qkvb"
        raise EncoderError(f"{name}: {reason}")
    return {}


def _sam(state: State, _: frozenset[str]) -> dict[str, Tensor]:
    """Segment Anything (arXiv 2304.02643): only the image encoder."""
    prefix = "image_encoder."
    inner = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    return _rename(inner, {"mlp.lin1.": "mlp.fc1.", "mlp.lin2.": "mlp.fc2."})


def _rename(state: State, new_by_old: Mapping[str, str]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in state.items():
        for old, new in new_by_old.items():
            name = name.replace(old, new)  # noqa: PLW2901 (one replacement after the other)
        renamed[name] = tensor
    return renamed


CONVERTERS: dict[str, Callable[[State, frozenset[str]], dict[str, Tensor]]] = {
    "image_encoder.patch_embed.proj.weight": _sam,
    "storage_tokens": _dinov3,
    "mask_token": _dinov2,
}
"""Conversion by a name that marks the file; the first match applies."""
