"""The graphs of a bundle, each held against PyTorch before it may stay."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import torch

from exporter import probe
from exporter.attention import fuse_attention
from exporter.bundle import GRAPH, BundleError, sha256_of
from exporter.graph import OPSET, Weights, halve_weights, save
from exporter.half import halved
from exporter.judge import Judge
from exporter.manifest import Agreement, Artifact, Precision
from exporter.probe import Answer, Bytes
from exporter.quantize import QuantisationError, quantise
from exporter.runtime import OnnxPredictor, measure_speed

FUSED_GRAPH, HALF_GRAPH, INT8_GRAPH = "model.fused.onnx", "model.fp16.onnx", "model.int8.onnx"

PROBE_AGREEMENT: dict[Weights, float] = {"fp32": 0.999, "fp16": 0.995}
"""Least fraction of equal mask pixels between PyTorch and onnxruntime in each probe image, by how precise weights are.

PyTorch computes with the full weights in either case, so rounding them counts as a difference. The probe's scenes are
nothing that a network was trained for: its near-ties make them a sharper test than photographs are."""

HALF_PROBE_AGREEMENT = 0.98
"""The same for arithmetic in half, which near-ties feel more than stored halves; photographs judge it by AGREEMENT."""

AGREEMENT: dict[Precision, float] = {"fp32": 0.9999, "fp16": 0.999}
"""Least fraction of equal mask pixels over a data set's validation images."""

MIOU_LOST = 0.005
"""How much of its mIoU an int8 graph may lose, 0..1."""

OTHER_CPU = 0.02
"""How much less of the probe int8 may give on another CPU, whose integer sums are rounded at other places."""


class UnfitError(ValueError):
    """A graph that is too far from PyTorch; the message says how far."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What PyTorch says.

    Attributes:
        images: the probe's, uint8 [H,W,3].
        answers: to them, in fp32; one more than images (see probe.ask).
        judge: validation images; None where no data set was given.
    """

    images: list[Bytes]
    answers: list[Answer]
    judge: Judge | None


def first(full: Path, folder: Path, weights: Weights, reference: Reference) -> Artifact:
    """The fp32 graph that runs everywhere. Raises BundleError when it is not what PyTorch is."""
    file = folder / GRAPH
    if weights == "fp16":
        halve_weights(full, file)
    else:
        shutil.copyfile(full, file)
    try:
        return _artifact(file, "fp32", reference, PROBE_AGREEMENT[weights], weights=weights)
    except UnfitError as error:
        raise BundleError(
            f"{error}; no bundle was written. With --weights fp16, try fp32; otherwise this torch or onnxruntime "
            "treats the network differently: try the versions of requirements.lock"
        ) from error


def others(
    full: Path, folder: Path, precisions: Sequence[Precision], reference: Reference, refused: Callable[[str], object]
) -> list[Artifact]:
    """The graphs beside it, all for onnxruntime alone.

    Args:
        full: the fp32 graph with its weights in full.
        folder: the bundle.
        precisions: which are wanted.
        reference: what PyTorch says.
        refused: told why a graph was not kept.

    Raises:
        BundleError: int8 is wanted, and there is no data set to learn and judge by.
    """
    model, attentions = fuse_attention(onnx.load(full))
    base = full
    if attentions:
        base = full.with_name(FUSED_GRAPH)
        save(model, base)
    makers: dict[str, Callable[[Path], Artifact]] = {}
    if attentions:
        makers[FUSED_GRAPH] = lambda file: _fused(base, file, reference)
    if "fp16" in precisions:
        makers[HALF_GRAPH] = lambda file: _half(base, file, reference)
    if "int8" in precisions:
        makers[INT8_GRAPH] = lambda file: _int8(base, file, reference)
    made = []
    for name, make in makers.items():
        try:
            made.append(replace(make(folder / name), fused_attention=attentions or None))
        except (UnfitError, QuantisationError) as error:
            (folder / name).unlink(missing_ok=True)
            refused(f"{name} was not written: {error}")
    return made


def _fused(base: Path, file: Path, reference: Reference) -> Artifact:
    shutil.copyfile(base, file)
    return _artifact(file, "fp32", reference, PROBE_AGREEMENT["fp32"])


def _half(base: Path, file: Path, reference: Reference) -> Artifact:
    save(halved(onnx.load(base)), file)
    return _artifact(file, "fp16", reference, HALF_PROBE_AGREEMENT)


def _int8(base: Path, file: Path, reference: Reference) -> Artifact:
    judge = reference.judge
    if judge is None:
        raise BundleError("int8 learns its ranges from images and is judged by labels: give --data DATASET")
    left = quantise(
        base,
        file,
        judge.calibration_images(),
        lambda graph: judge(OnnxPredictor(graph)).miou_lost,
        MIOU_LOST,
    )
    return _artifact(file, "int8", reference, 0.0, left_in_float=left)


def _artifact(
    file: Path,
    precision: Precision,
    reference: Reference,
    needed: float,
    *,
    weights: Weights = "fp32",
    left_in_float: int | None = None,
) -> Artifact:
    """A graph as it was found. Raises UnfitError."""
    predict = OnnxPredictor(file)
    found, expected = probe.ask(predict, reference.images), reference.answers
    agreement = Agreement(
        mask=probe.mask_agreement([answer.mask for answer in expected], [answer.mask for answer in found]),
        confidence_max_abs=probe.confidence_difference(expected, found),
    )
    if agreement.mask < needed:
        raise UnfitError(
            f"its masks equal PyTorch's at {agreement.mask:.5f} of a probe image's pixels, and {needed} are needed"
        )
    validation = reference.judge(predict) if reference.judge else None
    if validation and validation.mask < AGREEMENT.get(precision, 0.0):
        raise UnfitError(
            f"its masks equal PyTorch's at {validation.mask:.5f} of the pixels of {validation.images} validation "
            f"images, and {AGREEMENT[precision]} are needed"
        )
    return Artifact(
        file=file.name,
        precision=precision,
        weights=weights,
        sha256=sha256_of(file),
        opset=OPSET,
        agreement=agreement,
        bytes=file.stat().st_size,
        speed=measure_speed(file, threads=torch.get_num_threads()),
        probe_agreement=None if precision == "fp32" else needed or max(0.0, agreement.mask - OTHER_CPU),
        left_in_float=left_in_float,
        validation=validation,
    )
