"""A bundle as TensorRT takes it: a graph, checked and compared, and what builds an engine of it.

OUT/model.onnx      standard operators that TensorRT has, on types that it has; in fp16 unless told otherwise
OUT/tensorrt.json   for which sizes, the trtexec line, and what was seen
OUT/model.plan      the engine, where NVIDIA's library was there to build it
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
from exporter.fp16 import FP16_LIMIT, convert_to_fp16
from exporter.graph import save
from exporter.manifest import Artifact, Manifest
from exporter.probe import Bytes, Ids, Predict
from exporter.runtime import OnnxPredictor
from exporter.tensorrt import engine
from exporter.tensorrt.check import check, summary
from exporter.tensorrt.operators import SOURCE
from exporter.tensorrt.profile import Profile
from exporter.tensorrt.rewrite import for_tensorrt

REPORT, ENGINE = "tensorrt.json", "model.plan"
MASK_TYPES = ("tensor(uint8)", "tensor(int32)")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What TensorRT would say of one graph of a bundle."""

    file: str
    obstacles: str
    """As it is; empty: none."""
    rewritten: bool = False
    """Whether this command can make it fit."""

    @property
    def is_fit(self) -> bool:
        """As it is, or after `prepare`."""
        return self.rewritten or not self.obstacles


def look(bundle: Path, manifest: Manifest) -> list[Verdict]:
    """Check every graph of a sound bundle."""
    files = [artifact.file for artifact in manifest.artifacts]
    return [_verdict(bundle / file) for file in [*files, *([manifest.tile.file] if manifest.tile else [])]]


def _verdict(file: Path) -> Verdict:
    model = onnx.load(file)
    obstacles = summary(check(model))
    return Verdict(file.name, obstacles, rewritten=bool(obstacles) and not check(for_tensorrt(model)))


def prepare(
    bundle: Path, manifest: Manifest, out: Path, profile: Profile, precision: Literal["fp32", "fp16"]
) -> dict[str, Any]:
    """Make the folder for TensorRT; it appears complete or not at all.

    Returns:
        what tensorrt.json says.

    Raises:
        BundleError: The graph cannot be made fit, or gives other masks then; TensorRT, where it is there, refuses it;
            `out` exists.
    """
    artifact = plain(manifest)
    images, masks = probe.read_probe(bundle / PROBE)
    with new_bundle(out) as folder:
        graph = folder / GRAPH
        _write(bundle / artifact.file, graph, images if precision == "fp16" else None)
        expected = [*masks, masks[0]]
        needed = manifest.probe.tolerance.mask_agreement if precision == "fp32" else FP16_PROBE_AGREEMENT
        agreement = _agreement(OnnxPredictor(graph, mask_types=MASK_TYPES), images, expected)
        if agreement < needed:
            raise BundleError(
                f"made fit for TensorRT, {artifact.file} equals the probe at {agreement:.5f} of an image's pixels, and "
                f"{needed} are needed; nothing was written" + ("" if precision == "fp32" else ". Try --precision fp32")
            )
        report = {
            "bundle": manifest.version,
            "graph": GRAPH,
            "sha256": sha256_of(graph),
            "precision": precision,
            "checked_by": SOURCE,
            "onnxruntime_agreement": agreement,
            "profile": profile.shapes,
            "trtexec": trtexec(profile, precision),
            "engine": _engine(folder, profile, images, expected, needed, exact=precision == "fp32"),
        }
        (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def plain(manifest: Manifest) -> Artifact:
    """The fp32 graph of standard operators, from which TensorRT's is made."""
    fitting = [each for each in manifest.artifacts if each.precision == "fp32" and not each.fused_attention]
    return fitting[0]


def trtexec(profile: Profile, precision: Literal["fp32", "fp16"]) -> str:
    """The line that builds the engine, for TensorRT 10 and 11, from within the folder."""
    words = profile.words
    return shlex.join(
        [
            "trtexec",
            f"--onnx={GRAPH}",
            f"--saveEngine={ENGINE}",
            "--stronglyTyped",
            *(["--noTF32"] if precision == "fp32" else []),
            *(f"--{name}Shapes={words[name]}" for name in ("min", "opt", "max")),
        ]
    )


def _write(source: Path, file: Path, images: list[Bytes] | None) -> None:
    """The graph made fit; in half where images are given, whose large tensors stay in full."""
    model = for_tensorrt(onnx.load(source))
    save(model, file)
    if images is not None:
        save(convert_to_fp16(onnx.load(file), large_tensors(file, images, FP16_LIMIT)), file)
    if found := check(onnx.load(file)):
        raise BundleError(
            f"{source} is not for TensorRT: {summary(found)}. Exported again from its checkpoint with this version, it "
            "may be"
        )


def _engine(
    folder: Path, profile: Profile, images: list[Bytes], expected: list[Ids], needed: float, *, exact: bool
) -> dict[str, Any]:
    """Build it and run the probe through it, as far as this machine goes."""
    file = folder / ENGINE
    seen: dict[str, Any] = {"built_by": None, "bytes": None, "agreement": None, "missing": None}
    try:
        found = engine.library()
        engine.build(folder / GRAPH, file, profile, found, exact=exact)
        seen |= {"built_by": found.title, "bytes": file.stat().st_size}
        seen["agreement"] = _agreement(engine.predictor(file, found), images, expected)
    except engine.NoEngineError as error:
        return seen | {"missing": str(error)}
    if seen["agreement"] < needed:
        raise BundleError(
            f"the engine's masks equal the probe's at {seen['agreement']:.5f} of an image's pixels, and {needed} are "
            "needed; nothing was written. Try --precision fp32"
        )
    return seen


def _agreement(predict: Predict, images: list[Bytes], expected: list[Ids]) -> float:
    return probe.mask_agreement(expected, [answer.mask for answer in probe.run(predict, images)])
