"""One network of every family of timm, and those that are also exported."""

import re

import timm
from timm.models import _registry

SIZES = (
    *("zepto", "atto", "femto", "pico", "nano", "xxs", "xs", "xtiny", "tiny", "mini", "xsmall", "small", "little", "s"),
    *("medium", "m", "base", "b", "large", "l", "xlarge", "xl", "huge", "h", "giant", "g", "gigantic", "enormous"),
)
"""Words for the size of a network, in ascending order."""
VARIANTS = {"gap", "clsgap", "qkvb", "conv", "lrf", "srf", "evos", "abswin", "map", "sbb", "quickgelu", "avg"}
VARIANTS |= {"patch", "window", "reg"}
"""Words that do not make another family."""

EXPORTED = (
    *("vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3", "deit_tiny_patch16_224"),
    *("vit_tiny_patch16_224", "vit_base_patch16_clip_224", "eva02_tiny_patch14_224", "samvit_base_patch16"),
    *("beit_base_patch16_224", "beitv2_base_patch16_224", "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"),
    *("swinv2_cr_tiny_224", "hiera_tiny_224", "hiera_small_abswin_256", "sam2_hiera_tiny", "maxvit_tiny_tf_224"),
    *("maxvit_rmlp_pico_rw_256", "mambaout_femto", "convnext_atto", "convnextv2_atto", "resnet18", "resnet50"),
    *(
        "resnetv2_50x1_bit",
        "resnext50_32x4d",
        "regnety_002",
        "efficientnet_b0",
        "efficientnet_lite0",
        "tf_efficientnet_b0",
    ),
    *("tf_efficientnetv2_b0", "tf_mobilenetv3_small_100", "mobilenetv3_large_100", "mobilenetv4_conv_small"),
    *(
        "mobilenetv4_hybrid_medium",
        "pvt_v2_b0",
        "twins_svt_small",
        "twins_pcpvt_small",
        "davit_tiny",
        "focalnet_tiny_srf",
    ),
    *("hrnet_w18_small", "hgnetv2_b0", "efficientvit_b0", "fastvit_t8", "repvit_m0_9", "edgenext_xx_small"),
    *("poolformer_s12", "caformer_s18", "mvitv2_tiny", "xcit_nano_12_p8_224", "coatnet_nano_rw_224", "mixer_s32_224"),
    *("inception_v4", "dm_nfnet_f0", "densenet121", "vgg11_bn"),
)
"""The networks that are used most, and one of each kind that needs its own treatment."""


def representatives() -> list[str]:
    """The smallest network of every family, and the exported ones."""
    families: dict[tuple[str, str], list[str]] = {}
    for name in timm.list_models():
        if not name.startswith("test_"):
            families.setdefault((_registry._model_to_module[name], family(name)), []).append(name)
    return sorted({min(names, key=_size) for names in families.values()} | set(EXPORTED))


def family(name: str) -> str:
    """The name without sizes and variants: swin for swin_tiny_patch4_window7_224."""
    first, *others = (re.sub(r"\d.*", "", word) for word in name.split("_"))
    return "_".join([first, *(word for word in others if len(word) > 2 and word not in VARIANTS | set(SIZES))])


def _size(name: str) -> tuple[int, int, str]:
    words = [SIZES.index(word) for word in name.split("_") if word in SIZES]
    numbers = [int(number) for number in re.findall(r"\d+", name)]
    return min(words, default=0), min(numbers, default=0), name
