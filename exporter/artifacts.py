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
from exporter.classes_last import put_classes_last
from exporter.graph import OPSET, Weights, halve_weights, save
from exporter.half import LARGE, halved
from exporter.judge import Judge
from exporter.manifest import Agreement, Artifact, Precision
from exporter.probe import Answer, Bytes
from exporter.quantize import quantise
from exporter.ranges import large_tensors
from exporter.runtime import OnnxPredictor, measure_speed

FUSED_GRAPH, HALF_GRAPH, INT8_GRAPH = "model.fused.onnx", "model.fp16.onnx", "model.int8.onnx"

NO_DATA = "int8 learns its ranges from images and is judged by labels: give --data DATASET"

PROBE_AGREEMENT: dict[Weights, float] = {"fp32": 0.999, "fp16": 0.995}
"""Least fraction of equal mask pixels between PyTorch and onnxruntime in each probe image, by how precise weights are.

PyTorch computes with the full weights in either case, so rounding them counts as a difference. The probe's scenes are
nothing that a network was trained for: its near-ties make them a sharper test than photographs are."""

HALF_PROBE_AGREEMENT = 0.98
"""The same for graphs in half, whose near-ties are nearer; photographs judge them by HALF_AGREEMENT."""

AGREEMENT = 0.9999
"""Least fraction of equal mask pixels over a data set's validation images, in fp32 with weights in full."""

HALF_AGREEMENT = 0.999
"""The same where weights or arithmetic are in half."""

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
    full: Path,
    folder: Path,
    weights: Weights,
    precisions: Sequence[Precision],
    reference: Reference,
    *,
    refused: Callable[[str], object],
) -> list[Artifact]:
    """The graphs beside it, all for onnxruntime alone.

    Args:
        full: the fp32 graph with its weights in full.
        folder: the bundle.
        weights: how fp32 graphs store them.
        precisions: which are wanted.
        reference: what PyTorch says.
        refused: told why a graph was not kept.
    """
    makers: dict[str, Callable[[Path], Artifact | None]] = {
        FUSED_GRAPH: lambda file: _fused(full, file, weights, reference)
    }
    if "fp16" in precisions:
        makers[HALF_GRAPH] = lambda file: _half(full, file, reference)
    if "int8" in precisions:
        makers[INT8_GRAPH] = lambda file: _int8(full, file, reference)
    made = []
    for name, make in makers.items():
        try:
            made.append(make(folder / name))
        except Exception as error:  # those of onnxruntime's and onnxscript's tools share no base
            (folder / name).unlink(missing_ok=True)
            refused(f"{name} was not written: {error}")
    return [artifact for artifact in made if artifact]


def _fused(full: Path, file: Path, weights: Weights, reference: Reference) -> Artifact | None:
    """The graph with fused attention; None where there is none to fuse."""
    count = _fuse(full, file)
    if not count:
        return None
    if weights == "fp16":
        halve_weights(file, file)
    artifact = _artifact(file, "fp32", reference, PROBE_AGREEMENT[weights], weights=weights)
    return replace(artifact, fused_attention=count)


def _half(full: Path, file: Path, reference: Reference) -> Artifact:
    # The CPU, which compares below, computes in fp32 between roundings: it would not see that something overflows.
    large = large_tensors(full, reference.images, LARGE)
    count = _fuse(full, file) or None
    save(halved(onnx.load(file if count else full), large), file)
    return replace(_artifact(file, "fp16", reference, HALF_PROBE_AGREEMENT, weights="fp16"), fused_attention=count)


def _int8(full: Path, file: Path, reference: Reference) -> Artifact:
    judge = reference.judge
    if judge is None:
        raise BundleError(NO_DATA)
    images = judge.calibration_images()
    left = quantise(full, file, images, lambda graph: judge(OnnxPredictor(graph)).miou_lost, MIOU_LOST)
    # Behind the quantisation: of onnxruntime's own operators its tools do not know the types.
    count = _fuse(file, file) or None
    model = onnx.load(file)
    put_classes_last(model)
    save(model, file)
    artifact = _artifact(file, "int8", reference, 0.0)
    return replace(artifact, fused_attention=count, left_in_float=left)


def _fuse(graph: Path, file: Path) -> int:
    """Write the graph with fused attention, if it has any; how many times."""
    model, count = fuse_attention(onnx.load(graph))
    if count:
        save(model, file)
    return count


def _artifact(
    file: Path,
    precision: Precision,
    reference: Reference,
    needed: float,
    *,
    weights: Weights = "fp32",
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
    least = {"int8": 0.0, "fp16": HALF_AGREEMENT, "fp32": HALF_AGREEMENT if weights == "fp16" else AGREEMENT}[precision]
    if validation and validation.mask < least:
        raise UnfitError(
            f"its masks equal PyTorch's at {validation.mask:.5f} of the pixels of {validation.images} validation "
            f"images, and {least} are needed"
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
        validation=validation,
    )
