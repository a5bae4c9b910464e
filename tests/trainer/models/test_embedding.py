"""The embedding of an image: worked by hand, for each kind of encoder, and for images that show nearly the same."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from tests.trainer.models.test_segmenter import tiny
from trainer.models.embedding import image_embedding
from trainer.models.encoders.tiled import Tiled
from trainer.models.encoders.weights import load_encoder_weights
from trainer.models.predictor import MaskPredictor

HEAD: dict[str, Any] = {"weights": "none", "features": 8, "projections": [8, 8, 8, 8]}
DINO: dict[str, Any] = HEAD | {
    "encoder": "vit_small_patch14_dinov2",
    "encoder_options": {"depth": 4, "embed_dim": 96, "num_heads": 4, "img_size": 70},
}
LITE: dict[str, Any] = HEAD | {"encoder": "efficientnet_lite0"}
SWIN: dict[str, Any] = HEAD | {
    "encoder": "swin_tiny_patch4_window7_224",
    "encoder_options": {"depths": [1, 1, 1, 1], "embed_dim": 24, "num_heads": [1, 2, 4, 8]},
}


def test_mean_and_length_worked_by_hand() -> None:
    map_NDhw = torch.tensor([[[[1.0, 5.0]], [[4.0, 4.0]]], [[[0.0, 0.0]], [[-2.0, 0.0]]]])
    embedding_ND = image_embedding(map_NDhw)
    assert embedding_ND.dtype == torch.float16
    torch.testing.assert_close(embedding_ND.float(), torch.tensor([[0.6, 0.8], [0.0, -1.0]]), atol=1e-3, rtol=0)


def test_length_is_computed_in_float32() -> None:
    """In float16 the squares of these values overflow, or vanish."""
    for value in (6e4, 1e-6):
        embedding_ND = image_embedding(torch.full((1, 4, 3, 3), value, dtype=torch.float32))
        assert embedding_ND.tolist() == [[0.5] * 4]
    assert image_embedding(torch.zeros(1, 2, 3, 3)).tolist() == [[0, 0]], "no NaN"


@pytest.mark.parametrize("model", [DINO, LITE, SWIN], ids=["dino", "lite", "swin"])
def test_it_is_the_mean_of_the_last_map_that_the_head_reads(model: dict[str, Any]) -> None:
    segmenter = tiny(model)
    seen: list[list[Tensor]] = []
    segmenter.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    predictor, image_NHWC = MaskPredictor(segmenter), torch.randint(0, 256, (3, 75, 100, 3), dtype=torch.uint8)
    with torch.inference_mode():
        _, _, embedding_ND = predictor(image_NHWC)
        alone = [predictor(each[None])[2] for each in image_NHWC]
    mean_ND = seen[0][-1].mean(dim=(2, 3))
    assert embedding_ND.shape == (3, segmenter.encoder.channels[-1])
    torch.testing.assert_close(embedding_ND.float(), mean_ND / mean_ND.norm(dim=1, keepdim=True), atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.cat(alone), embedding_ND, atol=2e-3, rtol=0)


def test_filling_of_the_last_tiles_does_not_count() -> None:
    inner = tiny(LITE).encoder.eval()
    tiled, image_BCHW = Tiled(inner, (64, 64)), torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        last_BDhw = tiled(image_BCHW)[-1]
        left, right = inner(image_BCHW[..., :64])[-1], inner(torch.nn.functional.pad(image_BCHW[..., 64:], (0, 32)))[-1]
    expected = torch.cat([left, right[..., :1]], dim=3)
    torch.testing.assert_close(image_embedding(last_BDhw), image_embedding(expected), atol=1e-3, rtol=0)


def variants(image_HW3: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The same picture compressed, with its borders cut, and brighter."""
    image, sink = Image.fromarray(image_HW3), io.BytesIO()
    width, height = image.size
    image.save(sink, "JPEG", quality=75)
    yield "compressed", np.array(Image.open(sink))
    yield "cut", np.array(image.crop((width // 40, height // 40, width - width // 40, height - height // 40)))
    yield "brighter", np.array(ImageEnhance.Brightness(image).enhance(1.08))


PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "immunohistochemistry", "hubble_deep_field", "rocket")


@pytest.mark.parametrize(("model", "weights"), [(DINO, "none"), (LITE, "package")], ids=["random dino", "trained lite"])
def test_near_duplicates_are_closer_than_different_photographs(model: dict[str, Any], weights: str) -> None:
    data = pytest.importorskip("skimage.data", reason="scikit-image (extra: demo) is not installed")
    photographs = [Image.fromarray(getattr(data, name)()).convert("RGB").resize((224, 160)) for name in PHOTOGRAPHS]
    torch.manual_seed(0)
    segmenter = tiny(model)
    load_encoder_weights(segmenter.encoder, str(model["encoder"]), weights)
    predictor = MaskPredictor(segmenter.eval())

    def embed(image_HW3: np.ndarray) -> Tensor:
        with torch.inference_mode():
            embedding_1D: Tensor = predictor(torch.from_numpy(image_HW3[None]))[2]
        return embedding_1D[0].float()

    photograph_SD = torch.stack([embed(np.array(image)) for image in photographs])
    different = (photograph_SD @ photograph_SD.T).fill_diagonal_(-1).max()
    for number, image in enumerate(photographs):
        for change, variant_HW3 in variants(np.array(image)):
            cosine_S = photograph_SD @ embed(variant_HW3)
            assert int(cosine_S.argmax()) == number, (change, PHOTOGRAPHS[number])
            assert cosine_S[number] > different, (change, PHOTOGRAPHS[number])
