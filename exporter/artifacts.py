"""Write the graphs of a bundle; a graph is kept only if it agrees with PyTorch."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
import torch

from exporter import probe
from exporter.attention import fuse_attention
from exporter.bundle import GRAPH, BundleError, sha256_of
from exporter.calibration import large_tensors
from exporter.channels_last import resize_channels_last
from exporter.fp16 import FP16_SAFE_MAX, convert_to_fp16
from exporter.graph import OPSET, Weights, save, store_weights_as_fp16
from exporter.manifest import Agreement, Artifact, Precision
from exporter.probe import Bytes, Prediction
from exporter.quantize import quantize
from exporter.runtime import OnnxPredictor, measure_speed
from exporter.validation import Validator

FUSED_GRAPH, FP16_GRAPH, INT8_GRAPH = "model.fused.onnx", "model.fp16.onnx", "model.int8.onnx"

NO_DATA = "int8 is calibrated and validated on images of a data set: give --data DATASET"

PROBE_AGREEMENT: dict[Weights, float] = {"fp32": 0.999, "fp16": 0.995}
"""Minimum fraction of equal mask pixels between PyTorch (in fp32) and onnxruntime in each probe image, by storage of
the weights. Probe images have many near-ties between classes: a stricter test than photographs."""

FP16_PROBE_AGREEMENT = 0.98
"""The same for fp16 arithmetic, which changes more near-ties."""

VALIDATION_AGREEMENT = 0.9999
"""Minimum fraction of equal mask pixels over the validation images, for fp32 arithmetic and weights."""

FP16_VALIDATION_AGREEMENT = 0.999
"""The same for fp16 arithmetic or weights."""

MAX_MIOU_LOSS = 0.005
"""Largest accepted loss of mIoU of an int8 graph, [0, 1]."""

MIN_EMBEDDING_COSINE: dict[Precision, float] = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.95}
"""Minimum cosine of the embedding of each probe image with PyTorch's in fp32.

0.9999 is an angle of 0.8 degrees: if both embeddings of a pair are that far off, their cosine changes from 0.99 by at
most 0.005; fp16 may change it three times as much. int8 turns embeddings by 10 to 14 degrees (cosine 0.97 to 0.98,
EfficientNet-Lite0 on CamVid), all of them alike, and they are compared with those of the same graph. 0.95 refuses a
graph whose embeddings are further from their image's than those of another street scene (0.94 at most)."""

INT8_PROBE_MARGIN = 0.02
"""Allowance of an int8 graph's agreement and cosine for other CPUs, whose integer sums round differently."""


class DisagreementError(ValueError):
    """A graph that differs too much from PyTorch."""


@dataclass(frozen=True, slots=True)
class Reference:
    """PyTorch's predictions, with which graphs are compared."""

    images: list[Bytes]
    """Probe images, uint8 [H,W,3]."""
    predictions: list[Prediction]
    """Of `probe.run`."""
    validator: Validator | None


def write_fp32_graph(exported: Path, folder: Path, weights: Weights, reference: Reference) -> Artifact:
    """Write model.onnx, with standard operators. Raises BundleError if it differs too much from PyTorch."""
    file = folder / GRAPH
    if weights == "fp16":
        store_weights_as_fp16(exported, file)
    else:
        shutil.copyfile(exported, file)
    try:
        return _measure(file, "fp32", reference, PROBE_AGREEMENT[weights], weights=weights)
    except DisagreementError as error:
        raise BundleError(
            f"{error}; no bundle was written. With --weights fp16, try fp32; otherwise this version of torch or "
            "onnxruntime computes the network differently: try the versions of requirements.lock"
        ) from error


def write_optional_graphs(
    exported: Path,
    folder: Path,
    weights: Weights,
    precisions: Sequence[Precision],
    reference: Reference,
    *,
    skipped: Callable[[str], object],
) -> list[Artifact]:
    """Write the graphs that only onnxruntime can run: fused attention, fp16 and int8.

    `exported` has fp32 arithmetic and weights. `skipped` is called with the reason for each graph that is not kept.
    """
    writers = {
        "fp32": (FUSED_GRAPH, _write_fused),
        "fp16": (FP16_GRAPH, _write_fp16),
        "int8": (INT8_GRAPH, _write_int8),
    }
    written = []
    for precision, (name, write) in writers.items():
        if precision not in {"fp32", *precisions}:
            continue
        try:
            written.append(write(exported, folder / name, weights, reference))
        except Exception as error:  # exceptions of onnxruntime's and onnxscript's tools have no common base class
            (folder / name).unlink(missing_ok=True)
            skipped(f"{name} was not written: {error}")
    return [artifact for artifact in written if artifact]


def _write_fused(exported: Path, file: Path, weights: Weights, reference: Reference) -> Artifact | None:
    """Write fp32 with fused attention; return None if there is no attention to fuse."""
    count = _fuse(exported, file)
    if not count:
        return None
    if weights == "fp16":
        store_weights_as_fp16(file, file)
    return _measure(file, "fp32", reference, PROBE_AGREEMENT[weights], weights=weights, fused_attention=count)


def _write_fp16(exported: Path, file: Path, _weights: Weights, reference: Reference) -> Artifact:
    # The CPU of the comparison computes fp16 operators in fp32: it would not show an overflow.
    large = large_tensors(exported, reference.images, FP16_SAFE_MAX)
    count = _fuse(exported, file)
    save(convert_to_fp16(onnx.load(file if count else exported), large), file)
    return _measure(file, "fp16", reference, FP16_PROBE_AGREEMENT, weights="fp16", fused_attention=count)


def _write_int8(exported: Path, file: Path, _weights: Weights, reference: Reference) -> Artifact:
    validator = reference.validator
    if validator is None:
        raise BundleError(NO_DATA)

    def loss(graph: Path) -> float:
        return validator.measure(OnnxPredictor(graph)).miou_lost

    in_float = quantize(exported, file, validator.calibration_images(), loss, MAX_MIOU_LOSS)
    # After quantisation, whose tools cannot infer the types of onnxruntime's own operators.
    count = _fuse(file, file)
    model = ir.load(file)
    resize_channels_last(model)
    save(ir.to_proto(model), file)
    return _measure(file, "int8", reference, 0.0, fused_attention=count, left_in_float=in_float)


def _fuse(graph: Path, file: Path) -> int:
    """Write the graph if it has attention to fuse; return the number of blocks."""
    model, count = fuse_attention(onnx.load(graph))
    if count:
        save(model, file)
    return count


def _measure(
    file: Path,
    precision: Precision,
    reference: Reference,
    min_agreement: float,
    *,
    weights: Weights = "fp32",
    fused_attention: int = 0,
    left_in_float: int | None = None,
) -> Artifact:
    """Compare a graph with PyTorch and measure its speed. Raises DisagreementError."""
    predict = OnnxPredictor(file)
    found, expected = probe.run(predict, reference.images), reference.predictions
    agreement = Agreement(
        mask=probe.mask_agreement([each.mask for each in expected], [each.mask for each in found]),
        confidence_max_abs=probe.confidence_difference(expected, found),
        embedding_cosine=probe.embedding_cosine(
            [each.embedding for each in expected], [each.embedding for each in found]
        ),
    )
    min_cosine = MIN_EMBEDDING_COSINE["fp16" if weights == "fp16" else precision]
    _check_agreement(agreement, min_agreement, min_cosine)
    validation = reference.validator.measure(predict) if reference.validator else None
    in_fp16 = "fp16" in {precision, weights}
    required = 0.0 if precision == "int8" else FP16_VALIDATION_AGREEMENT if in_fp16 else VALIDATION_AGREEMENT
    if validation and validation.mask < required:
        raise DisagreementError(
            f"its masks equal PyTorch's at {validation.mask:.5f} of the pixels of {validation.images} validation "
            f"images, and {required} are required"
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
        probe_agreement=None if precision == "fp32" else min_agreement or max(0.0, agreement.mask - INT8_PROBE_MARGIN),
        min_embedding_cosine=_min_cosine_elsewhere(agreement, precision, min_cosine),
        left_in_float=left_in_float,
        fused_attention=fused_attention or None,
        validation=validation,
    )


def _min_cosine_elsewhere(agreement: Agreement, precision: Precision, min_cosine: float) -> float | None:
    """The minimum for readers; for int8 less than measured, as for masks."""
    found = agreement.embedding_cosine
    return found if found is None else min_cosine if precision != "int8" else found - INT8_PROBE_MARGIN


def _check_agreement(agreement: Agreement, min_mask: float, min_cosine: float) -> None:
    """Raise DisagreementError if a graph's results on the probe images differ too much from PyTorch's."""
    if agreement.mask < min_mask:
        raise DisagreementError(
            f"its masks equal PyTorch's at {agreement.mask:.5f} of a probe image's pixels, and {min_mask} are required"
        )
    if agreement.embedding_cosine is not None and agreement.embedding_cosine < min_cosine:
        raise DisagreementError(
            f"the cosine of its embedding of a probe image with PyTorch's is {agreement.embedding_cosine:.5f}, and "
            f"{min_cosine} is required"
        )
