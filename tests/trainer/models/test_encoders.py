"""All encoder families: shapes at several sizes, gradients, blocks, layers, freezing."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from tests.trainer.conftest import TINY_CONVNET, TINY_VIT
from trainer.config import Model
from trainer.models.encoders.encoder import EncoderError, _leaves, build_encoder
from trainer.models.segmenter import build_segmenter

SHALLOW: dict[str, Any] = {"depth": 4, "embed_dim": 48, "num_heads": 2}
PLAIN: list[tuple[str, dict[str, Any]]] = [
    ("vit_small_patch14_dinov2", SHALLOW),
    ("vit_large_patch14_reg4_dinov2", SHALLOW),
    ("vit_giant_patch14_dinov2", SHALLOW),
    ("vit_small_patch16_dinov3", SHALLOW),
    ("vit_huge_plus_patch16_dinov3_qkvb", SHALLOW),
    ("samvit_base_patch16", SHALLOW | {"img_size": 224, "window_size": 3}),
    ("deit3_small_patch16_224", SHALLOW),
    ("vit_base_patch16_clip_224", SHALLOW),
    ("beit_base_patch16_224", SHALLOW),
    ("mixer_s32_224", {"mlp_ratio": 1}),
]
TINY_SWIN: dict[str, Any] = {"depths": (1, 1, 2, 2), "embed_dim": 8, "num_heads": (1, 1, 2, 2)}
HIERARCHICAL: list[tuple[str, dict[str, Any]]] = [
    ("resnet101", {"layers": (1, 1, 2, 1), "channels": (8, 16, 24, 32)}),
    ("convnext_tiny", {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}),
    ("pvt_v2_b0", {"depths": (1, 1, 2, 1), "embed_dims": (8, 16, 40, 64)}),
    ("efficientnet_lite0", {}),
    ("swin_tiny_patch4_window7_224", TINY_SWIN),
    ("swinv2_tiny_window16_256", TINY_SWIN),
    ("hiera_tiny_224", {"embed_dim": 8}),
    ("hiera_small_abswin_256", {"embed_dim": 8, "stages": (1, 2, 2, 1)}),
    ("test_maxvit", {}),
    ("test_mambaout", {}),
    ("test_coatnet", {}),
    ("xception41", {}),
]
FAMILIES = [pytest.param(*family, id=family[0]) for family in PLAIN + HIERARCHICAL]


@pytest.mark.parametrize(("name", "options"), FAMILIES)
def test_four_maps_at_several_sizes_and_a_gradient_for_every_parameter(name: str, options: dict[str, Any]) -> None:
    encoder = build_encoder(name, options).train()
    multiple = encoder.size_multiple
    for height, width in ((2, 2), (3, 5), (9, 4)):
        maps = encoder(torch.rand(2, 3, height * multiple, width * multiple))
        assert [tuple(m.shape) for m in maps] == [
            (2, channels, height * multiple // stride, width * multiple // stride)
            for channels, stride in zip(encoder.channels, encoder.strides, strict=True)
        ]
    torch.stack([m.square().mean() for m in maps]).sum().backward()  # type: ignore[no-untyped-call]
    unreached = [name for name, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert not unreached, "DistributedDataParallel would wait for these"


@pytest.mark.parametrize(("name", "options"), FAMILIES)
def test_layer_numbers_rise_from_the_stem_through_the_blocks(name: str, options: dict[str, Any]) -> None:
    encoder = build_encoder(name, options)
    layers = encoder.layers()
    depth = len(encoder.blocks())
    assert list(layers) == [name for name, _ in encoder.named_parameters()]
    assert list(layers.values()) == sorted(layers.values())
    assert set(range(depth + 1)) <= set(layers.values()) <= set(range(depth + 2))
    for number, block in enumerate(encoder.blocks(), 1):
        names = {id(parameter): name for name, parameter in encoder.named_parameters()}
        assert {layers[names[id(parameter)]] for parameter in block.parameters()} == {number}


@pytest.mark.parametrize(
    ("parameter", "layer"),
    [
        ("vit.cls_token", 0),
        ("vit.pos_embed", 0),
        ("vit.patch_embed.proj.weight", 0),
        ("vit.blocks.0.norm1.weight", 1),
        ("vit.blocks.3.ls2.gamma", 4),
        ("vit.norm.weight", 5),
    ],
)
def test_layers_of_dinov2(parameter: str, layer: int) -> None:
    assert build_encoder("vit_small_patch14_dinov2", SHALLOW).layers()[parameter] == layer


@pytest.mark.parametrize(
    ("parameter", "layer"),
    [
        ("stages.conv1.weight", 0),
        ("stages.layer1.0.conv1.weight", 1),
        ("stages.layer3.1.bn3.weight", 4),
        ("stages.layer4.0.conv1.weight", 5),
    ],
)
def test_layers_of_a_resnet(parameter: str, layer: int) -> None:
    assert build_encoder(*HIERARCHICAL[0]).layers()[parameter] == layer


def test_layers_between_two_blocks_belong_to_the_preceding_block() -> None:
    encoder = build_encoder(*HIERARCHICAL[1])
    assert encoder.layers()["stages.stages_1.downsample.1.weight"] == 1
    assert encoder.layers()["stages.stages_1.blocks.0.norm.weight"] == 2


def test_used_parameters_are_found_without_a_backward_pass() -> None:
    used, unused, frozen = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(requires_grad=False)
    unused(torch.ones(2))
    outputs = [used(torch.ones(2)), used(frozen(torch.ones(2))) + 1]
    assert _leaves(outputs) == {id(parameter) for parameter in used.parameters()}


def test_unknown_encoder_options_are_rejected() -> None:
    with pytest.raises(EncoderError, match="depht"):
        build_encoder("vit_small_patch14_dinov2", {"depht": 2})


@pytest.mark.parametrize("model", [TINY_VIT, TINY_CONVNET], ids=["vit", "convnet"])
def test_frozen_encoder_does_not_change_in_training(model: dict[str, Any]) -> None:
    torch.manual_seed(0)
    segmenter = build_segmenter(Model(**model), 3)
    segmenter.encoder.freeze()
    before = copy.deepcopy(segmenter.encoder.state_dict())
    student = copy.deepcopy(segmenter).train()
    student(torch.rand(2, 3, 32, 64)).square().mean().backward()
    assert all(parameter.grad is None for parameter in student.encoder.parameters())
    assert all(parameter.grad is not None for parameter in student.head.parameters())
    assert not any(module.training for module in student.encoder.modules())
    assert student.head.training
    assert all(torch.equal(before[name], value) for name, value in student.encoder.state_dict().items())


def test_frozen_norms_keep_statistics_and_train_weights() -> None:
    torch.manual_seed(0)
    encoder = build_encoder("resnet18")
    encoder.freeze_norms()
    student = copy.deepcopy(encoder).train()
    before = {name: buffer.clone() for name, buffer in student.named_buffers()}
    torch.stack([map_BCHW.square().mean() for map_BCHW in student(torch.rand(2, 3, 64, 64))]).sum().backward()  # type: ignore[no-untyped-call]
    assert before
    assert all(torch.equal(before[name], buffer) for name, buffer in student.named_buffers())
    assert all(parameter.grad is not None for parameter in student.parameters() if parameter.requires_grad)
    encoder.train()(torch.rand(2, 3, 64, 64))
    norms = [module for module in encoder.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)


@pytest.mark.parametrize(("name", "options"), [PLAIN[0], HIERARCHICAL[0]], ids=["vit", "resnet"])
def test_compiled_blocks_keep_names_and_outputs(name: str, options: dict[str, Any]) -> None:
    encoder = build_encoder(name, options).eval()
    names, blocks = list(encoder.state_dict()), encoder.blocks()
    images = [torch.rand(2, 3, side * encoder.size_multiple, 2 * encoder.size_multiple) for side in (2, 3, 4)]
    with torch.no_grad():
        before = [encoder(image_B3HW) for image_B3HW in images]
        encoder.compile_blocks("eager")
        after = [encoder(image_B3HW) for image_B3HW in images]
    assert list(encoder.state_dict()) == names
    assert encoder.blocks() == blocks
    for maps in zip(before, after, strict=True):
        torch.testing.assert_close(*maps)


def test_blocks_of_hierarchical_networks_are_their_residual_blocks() -> None:
    assert [len(build_encoder(name, options).blocks()) for name, options in HIERARCHICAL[:5]] == [5, 5, 5, 16, 6]
