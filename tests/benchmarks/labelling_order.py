"""Does the order of `GET /v1/images?order=uncertain` choose better images to label than chance?

A cheap substitute for training: a linear classifier (ridge regression) of the features of a frozen encoder at every
16th pixel. It is fitted to the labels of the chosen images, and its mIoU on the validation images is measured. The
first ten images are those nearest to the centroids; then ten at a time are chosen, as by a person who asks for more:

    chance        random images
    covering      herding with equal weights
    herding       herding weighted by uncertainty, as the service does it
    uncertain     the most uncertain images

Uncertainties are those of the starter model. Run it with `make bench-labels DATA=DATASET`; it takes minutes.
"""

# I images, P places of an image, F features, K classes, D channels of the embedding

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from service.curation.centroids import central_images
from service.curation.herding import flattened, herd, herding_width
from service.models.bundle import read_bundle
from service.models.loading import load_model
from service.segmentation.analysis import analyse
from service.segmentation.decode import Limits
from service.settings import Settings
from trainer.data.readers.layouts import open_dataset
from trainer.models.embedding import image_embedding
from trainer.models.encoders.encoder import build_encoder
from trainer.models.encoders.weights import load_encoder_weights

ENCODER = "efficientnet_lite0"
STRIDE, SIZE_MULTIPLE = 16, 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IGNORE = 255
FIRST, AT_A_TIME = 10, 10
BUDGETS = (10, 20, 40, 80)
RIDGE = 1e-2
"""Of the mean square of the features."""
LIMITS = Limits(max_bytes=1 << 26, max_pixels=1 << 26)


@dataclass(frozen=True, slots=True)
class Pool:
    """The images that can be labelled, with what is needed to fit a classifier to any of them."""

    embeddings_ID: np.ndarray
    uncertainty_I: np.ndarray
    squares_IFF: np.ndarray
    """Of each image, the sum over its labelled places of x x^T."""
    products_IFK: np.ndarray
    """Of each image, the sum of x y^T; y is 1 for the place's class."""


Order = Callable[[Pool, list[int], int, np.random.Generator], list[int]]


def chance(pool: Pool, labelled: list[int], count: int, rng: np.random.Generator) -> list[int]:
    """Random images."""
    return [int(each) for each in rng.permutation(_others(pool, labelled))[:count]]


def uncertain(pool: Pool, labelled: list[int], count: int, rng: np.random.Generator) -> list[int]:
    """The most uncertain images."""
    others = _others(pool, labelled)
    return [int(each) for each in others[np.argsort(-pool.uncertainty_I[others], kind="stable")][:count]]


def covering(pool: Pool, labelled: list[int], count: int, rng: np.random.Generator) -> list[int]:
    """Images that cover the space of embeddings."""
    return _herded(pool, labelled, count, np.ones(len(pool.uncertainty_I), np.float32), rng)


def herding(pool: Pool, labelled: list[int], count: int, rng: np.random.Generator) -> list[int]:
    """The service's order."""
    return _herded(pool, labelled, count, pool.uncertainty_I, rng)


ORDERS: dict[str, Order] = {"chance": chance, "covering": covering, "herding": herding, "uncertain": uncertain}


def _herded(
    pool: Pool, labelled: list[int], count: int, uncertainty_I: np.ndarray, rng: np.random.Generator
) -> list[int]:
    # As `ImageOrders`.
    others = rng.permutation(_others(pool, labelled))
    candidates, done = pool.embeddings_ID[others], pool.embeddings_ID[labelled]
    weights = flattened(uncertainty_I[others].astype(np.float64), len(labelled), pool.products_IFK.shape[2])
    width = herding_width(candidates, done)
    return [int(others[each]) for each in herd(candidates, candidates, weights, done, width=width, count=count)]


def _others(pool: Pool, labelled: list[int]) -> np.ndarray:
    return np.setdiff1d(np.arange(len(pool.embeddings_ID)), labelled)


def fit(pool: Pool, labelled: list[int]) -> np.ndarray:
    """Weights of the linear classifier, [F, K]."""
    squares_FF, products_FK = pool.squares_IFF[labelled].sum(axis=0), pool.products_IFK[labelled].sum(axis=0)
    ridge = RIDGE * np.trace(squares_FF) / len(squares_FF)
    weights_FK = np.linalg.solve(squares_FF + ridge * np.eye(len(squares_FF)), products_FK)
    return np.asarray(weights_FK, np.float32)


def miou(weights_FK: np.ndarray, features_NF: np.ndarray, label_N: np.ndarray) -> float:
    """Mean IoU over the classes in the labels, 0..1."""
    classes = weights_FK.shape[1]
    found_N = (features_NF @ weights_FK).argmax(axis=1)
    counts_KK = np.bincount(label_N * classes + found_N, minlength=classes**2).reshape(classes, classes)
    correct_K = np.diag(counts_KK)
    union_K = counts_KK.sum(axis=0) + counts_KK.sum(axis=1) - correct_K
    return float((correct_K / np.maximum(union_K, 1))[counts_KK.sum(axis=1) > 0].mean())


def read_features(encoder: torch.nn.Module, file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features at every 16th pixel with a constant 1, [h, w, F], and the embedding, [D]."""
    image_HW3 = np.asarray(Image.open(file).convert("RGB"))
    height, width = (side // SIZE_MULTIPLE * SIZE_MULTIPLE for side in image_HW3.shape[:2])
    scaled_HW3 = (image_HW3[:height, :width] / 255 - np.array(MEAN)) / np.array(STD)
    with torch.inference_mode():
        maps = encoder(torch.from_numpy(scaled_HW3.astype(np.float32)).permute(2, 0, 1)[None])
        size = (height // STRIDE, width // STRIDE)
        resized = [functional.interpolate(each.float(), size, mode="bilinear") for each in maps[-2:]]
        features = torch.cat([*resized, torch.ones(1, 1, *size)], dim=1)[0].permute(1, 2, 0)
        return features.numpy(), image_embedding(maps[-1])[0].float().numpy()


def read_label(file: Path, height: int, width: int) -> np.ndarray:
    """Class ids at the centres of the places, [h, w]."""
    middle = STRIDE // 2
    label_HW = np.asarray(Image.open(file))
    return label_HW[middle::STRIDE, middle::STRIDE][:height, :width].astype(np.int64)


def read_pool(root: Path, names: list[str], encoder: torch.nn.Module, classes: int) -> Pool:
    """Read the images that can be labelled."""
    model = load_model(read_bundle(Settings().start_model), Settings(precision="fp32"))
    embeddings, uncertainties, squares, products = [], [], [], []
    for name in names:
        features_NF, label_N, embedding_D = read_places(root, name, encoder)
        embeddings.append(embedding_D)
        uncertainties.append(analyse((root / "images" / f"{name}.jpg").read_bytes(), model.engine, LIMITS).uncertainty)
        squares.append(features_NF.T @ features_NF)
        products.append(features_NF.T @ np.eye(classes, dtype=np.float32)[label_N])
    return Pool(np.stack(embeddings), np.array(uncertainties), np.stack(squares), np.stack(products))


def read_places(root: Path, name: str, encoder: torch.nn.Module) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features and class ids of the labelled places of an image, and its embedding."""
    features_hwF, embedding_D = read_features(encoder, root / "images" / f"{name}.jpg")
    label_hw = read_label(root / "masks" / f"{name}.png", *features_hwF.shape[:2])
    counted = label_hw != IGNORE
    return features_hwF[counted], label_hw[counted], embedding_D


def main() -> None:
    """Print a table of mIoU by order and number of labels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data set with images/NAME.jpg, such as CamVid")
    parser.add_argument("--seeds", type=int, default=20, help="repetitions with other random choices")
    options = parser.parse_args()
    classes = len(open_dataset(options.data).taxonomy.names)
    encoder = build_encoder(ENCODER).eval()
    load_encoder_weights(encoder, ENCODER, "package")
    split = {s: (options.data / "splits" / f"{s}.txt").read_text().split() for s in ("train", "val")}
    pool = read_pool(options.data, split["train"], encoder, classes)
    val = [read_places(options.data, name, encoder) for name in split["val"]]
    features_NF, label_N = (np.concatenate([each[part] for each in val]) for part in (0, 1))
    scores = {
        name: [curve(pool, order, seed, features_NF, label_N) for seed in range(options.seeds)]
        for name, order in ORDERS.items()
    }
    whole = miou(fit(pool, list(range(len(split["train"])))), features_NF, label_N)
    print("\n".join(table(scores, f"{len(split['train'])}, all", whole)))  # noqa: T201 - its purpose


def table(scores: dict[str, list[list[float]]], everything: str, whole: float) -> Iterator[str]:
    """Rows of the table, in percent: mean and standard deviation over the seeds."""
    yield "| labels | " + " | ".join(scores) + " |"
    yield "|---" * (1 + len(scores)) + "|"
    for row, budget in enumerate(BUDGETS):
        columns = [100 * np.array(found)[:, row] for found in scores.values()]
        yield f"| {budget} | " + " | ".join(f"{each.mean():.1f} ± {each.std():.1f}" for each in columns) + " |"
    yield f"| {everything} | " + " | ".join([f"{100 * whole:.1f}"] * len(scores)) + " |"


def curve(pool: Pool, order: Order, seed: int, features_NF: np.ndarray, label_N: np.ndarray) -> list[float]:
    """MIoU after each budget."""
    rng = np.random.default_rng(seed)
    labelled = chance(pool, [], FIRST, rng) if order is chance else central_images(pool.embeddings_ID, FIRST, rng)
    scores = []
    for budget in BUDGETS:
        while len(labelled) < budget:
            labelled = labelled + order(pool, labelled, AT_A_TIME, rng)
        scores.append(miou(fit(pool, labelled), features_NF, label_N))
    return scores


if __name__ == "__main__":
    main()
