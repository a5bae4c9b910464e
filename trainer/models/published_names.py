"""Weights as their authors publish them, under timm's names: Meta's DINOv2, DINOv3 and Segment Anything.

Each function takes a state dict with the authors' names and returns one with those of timm's network, where a tensor is
laid out otherwise too. What only pretraining needs is left out; every other name passes through, so that a surplus one
is found when the encoder is filled.
"""

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from trainer.models.feature_maps import EncoderError

State = Mapping[str, Tensor]


def timm_names(state: State, wanted: Iterable[str]) -> dict[str, Tensor]:
    """Rename what is known to be an author's file; another file's names stay as they are.

    Args:
        state: a file's tensors by name.
        wanted: the names that the encoder's network has.

    Raises:
        EncoderError: a bias of DINOv3 has values and the encoder has no place for it.
    """
    for mark, rename in MARKS.items():
        if mark in state:
            return rename(state, frozenset(wanted))
    return dict(state)


def _dinov2(state: State, _: frozenset[str]) -> dict[str, Tensor]:
    """DINOv2 (arXiv 2304.07193), and with registers (arXiv 2309.16588)."""
    renamed = _replaced(state, {"mlp.w12.": "mlp.fc1.", "mlp.w3.": "mlp.fc2.", "register_tokens": "reg_token"})
    renamed.pop("mask_token", None)
    if "reg_token" in renamed:
        # Where there are registers, timm keeps the class token's place apart from the patches' and inside the token.
        place_1ND = renamed["pos_embed"]
        renamed["cls_token"] = renamed["cls_token"] + place_1ND[:, :1]
        renamed["pos_embed"] = place_1ND[:, 1:]
    return renamed


def _dinov3(state: State, wanted: frozenset[str]) -> dict[str, Tensor]:
    """DINOv3 (arXiv 2508.10104). The rotary periods follow from the architecture and are no weights."""
    names = {"ls1.gamma": "gamma_1", "ls2.gamma": "gamma_2", "storage_tokens": "reg_token"}
    gated = {"mlp.w1.": "mlp.fc1_g.", "mlp.w2.": "mlp.fc1_x.", "mlp.w3.": "mlp.fc2."}
    surplus = ("mask_token", "rope_embed.periods", "qkv.bias_mask", "local_cls_norm.weight", "local_cls_norm.bias")
    kept = {name: tensor for name, tensor in state.items() if not name.endswith(surplus)}
    renamed: dict[str, Tensor] = {}
    for name, tensor in _replaced(kept, names | gated).items():
        if name.endswith("qkv.bias"):
            renamed |= _split_bias(name, tensor, wanted)
        else:
            renamed[name] = tensor
    return renamed


def _split_bias(name: str, bias_D: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
    """DINOv3 masks the bias of the keys; timm has one for queries and one for values, or none at all."""
    query, _, value = bias_D.chunk(3)
    parts = {name.replace("qkv.bias", "q_bias"): query, name.replace("qkv.bias", "v_bias"): value}
    if parts.keys() <= wanted:
        return parts
    if query.any() or value.any():
        raise EncoderError(
            f"{name}: has values, but this encoder has no such bias; choose the encoder of that name with _qkvb"
        )
    return {}


def _sam(state: State, _: frozenset[str]) -> dict[str, Tensor]:
    """Segment Anything (arXiv 2304.02643): the image encoder, without prompt encoder and mask decoder."""
    prefix = "image_encoder."
    inner = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    return _replaced(inner, {"mlp.lin1.": "mlp.fc1.", "mlp.lin2.": "mlp.fc2."})


def _replaced(state: State, new_by_old: Mapping[str, str]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in state.items():
        for old, new in new_by_old.items():
            name = name.replace(old, new)  # noqa: PLW2901 (one replacement after the other)
        renamed[name] = tensor
    return renamed


MARKS: dict[str, Callable[[State, frozenset[str]], dict[str, Tensor]]] = {
    "image_encoder.patch_embed.proj.weight": _sam,
    "storage_tokens": _dinov3,
    "mask_token": _dinov2,
}
"""A name that only that author's files have, and what renames them; the first that is there decides."""
