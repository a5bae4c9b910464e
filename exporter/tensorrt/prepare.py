"""Check a bundle's graphs with TensorRT's parser, and write a folder from which TensorRT builds an engine.

OUT/model.onnx      the graph in operators and types that TensorRT has; fp16 by default
OUT/tensorrt.json   image sizes, the trtexec command, the library that checked the graph, agreement with the probe
OUT/model.plan      the engine, if it could be built
"""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx

from exporter import probe
from exporter.artifacts import FP16_PROBE_AGREEMENT
from exporter.bundle import GRAPH, PROBE, BundleError, new_bundle, sha256_of
from exporter.calibration import large_tensors
from exporter.fp16 import FP16_SAFE_MAX, convert_to_fp16
from exporter.graph import save
from exporter.manifest import Artifact, Manifest
from exporter.probe import Bytes, Ids, Predict
from exporter.runtime import OnnxPredictor
from exporter.tensorrt import engine
from exporter.tensorrt.profile import Profile
from exporter.tensorrt.rewrite import for_tensorrt

REPORT, ENGINE = "tensorrt.json", "model.plan"
MASK_TYPES = ("tensor(uint8)", "tensor(int32)")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The parser's result for one graph."""

    file: str
    obstacles: str
    """What the parser rejects in the graph as it is."""
    rewritten: bool = False
    """The parser accepts the graph only after `for_tensorrt`."""

    @property
    def is_fit(self) -> bool:
        """Whether the parser accepts either form."""
        return self.rewritten or not self.obstacles


def check_graphs(bundle: Path, manifest: Manifest, library: engine.Library) -> list[Verdict]:
    """Run TensorRT's parser on every graph of a bundle, as it is and, if rejected, rewritten."""
    files = [artifact.file for artifact in manifest.artifacts]
    return [_verdict(bundle / file, library) for file in [*files, *([manifest.tile.file] if manifest.tile else [])]]


def _verdict(file: Path, library: engine.Library) -> Verdict:
    obstacles = engine.parse_errors(file.read_bytes(), library)
    if not obstacles:
        return Verdict(file.name, "")
    rewritten = for_tensorrt(onnx.load(file)).SerializeToString()
    return Verdict(file.name, obstacles, rewritten=not engine.parse_errors(rewritten, library))


def prepare(
    bundle: Path, manifest: Manifest, out: Path, profile: Profile, precision: Literal["fp32", "fp16"]
) -> dict[str, Any]:
    """Write the folder for TensorRT, complete or not at all, and return the content of tensorrt.json.

    Without NVIDIA's library the graph is unchecked, and `checked_by` is None.

    Raises:
        BundleError: TensorRT rejects the rewritten graph, its masks differ too much from the probe's, or `out` exists.
    """
    artifact = plain_graph(manifest)
    images, masks, _ = probe.read_probe(bundle / PROBE)
    with new_bundle(out) as folder:
        graph = folder / GRAPH
        save(for_tensorrt(onnx.load(bundle / artifact.file)), graph)
        if precision == "fp16":
            save(convert_to_fp16(onnx.load(graph), large_tensors(graph, images, FP16_SAFE_MAX)), graph)
        expected = [*masks, masks[0]]  # `probe.run` repeats the first image in a batch of two
        needed = manifest.probe.tolerance.mask_agreement if precision == "fp32" else FP16_PROBE_AGREEMENT
        agreement = _agreement(OnnxPredictor(graph, mask_types=MASK_TYPES), images, expected)
        if agreement < needed:
            raise BundleError(
                f"after the rewrite for TensorRT, {artifact.file} agrees with the probe in {agreement:.5f} of an "
                f"image's pixels, and {needed} are needed; nothing was written"
                + ("" if precision == "fp32" else ". Try --precision fp32")
            )
        built = _build_engine(folder, profile, images, expected, needed, exact=precision == "fp32")
        report = {
            "bundle": manifest.version,
            "graph": GRAPH,
            "sha256": sha256_of(graph),
            "precision": precision,
            "checked_by": built["built_by"],
            "onnxruntime_agreement": agreement,
            "profile": profile.shapes,
            "trtexec": trtexec_command(profile, precision),
            "engine": built,
        }
        (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def plain_graph(manifest: Manifest) -> Artifact:
    """Return the fp32 graph of standard operators."""
    return next(each for each in manifest.artifacts if each.precision == "fp32" and not each.fused_attention)


def trtexec_command(profile: Profile, precision: Literal["fp32", "fp16"]) -> str:
    """Return the command that builds the engine with TensorRT 10 or 11."""
    full = ["--noTF32"] if precision == "fp32" else []
    shapes = [f"--{name}Shapes={argument}" for name, argument in profile.arguments.items()]
    return shlex.join(["trtexec", f"--onnx={GRAPH}", f"--saveEngine={ENGINE}", "--stronglyTyped", *full, *shapes])


def _build_engine(
    folder: Path, profile: Profile, images: list[Bytes], expected: list[Ids], needed: float, *, exact: bool
) -> dict[str, Any]:
    """Build the engine and run the probe on it; `missing` names what the machine lacks."""
    file = folder / ENGINE
    report: dict[str, Any] = {"built_by": None, "bytes": None, "agreement": None, "missing": None}
    try:
        library = engine.find_library()
        engine.build(folder / GRAPH, file, profile, library, exact=exact)
        report |= {"built_by": library.title, "bytes": file.stat().st_size}
        report["agreement"] = _agreement(engine.load_predictor(file, library), images, expected)
    except engine.TensorRTUnavailableError as error:
        return report | {"missing": str(error)}
    if report["agreement"] < needed:
        raise BundleError(
            f"the engine agrees with the probe in {report['agreement']:.5f} of an image's pixels, and {needed} are "
            "needed; nothing was written. Try --precision fp32"
        )
    return report


def _agreement(predict: Predict, images: list[Bytes], expected: list[Ids]) -> float:
    return probe.mask_agreement(expected, [answer.mask for answer in probe.run(predict, images)])
