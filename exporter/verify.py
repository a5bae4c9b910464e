"""Verify a bundle: format, checksums, and the masks of its probe images with onnxruntime."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exporter import probe
from exporter.bundle import BundleError, read_manifest, sha256_of
from exporter.manifest import Artifact, Manifest, TensorRT, Tile
from exporter.model_card import markdown_table
from exporter.probe import scene
from exporter.runtime import OnnxPredictor, run_tile_graph
from exporter.tensorrt.profile import OPTIONS, PREFIX


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """A valid bundle's manifest and number of probe images."""

    manifest: Manifest
    images: int
    agreement: dict[str, float]
    """Fraction of equal pixels in the worst image, by graph file, [0, 1]."""

    @property
    def mask_agreement(self) -> float:
        """The agreement of the fp32 graph."""
        return self.agreement[next(each.file for each in self.manifest.artifacts if each.precision == "fp32")]


def verify(bundle: Path) -> Verified:
    """Check a bundle as the service does before it serves the bundle.

    Raises BundleError if the manifest is invalid, a file is missing or altered, a graph is not a bundle's, or its masks
    differ from the probe's beyond the tolerance.
    """
    manifest = read_manifest(bundle)
    _check_sums(bundle, manifest)
    try:
        images, masks = probe.read_probe(bundle / manifest.probe.file)
        found = {
            artifact.file: [each.mask for each in probe.run(OnnxPredictor(bundle / artifact.file), images)]
            for artifact in manifest.artifacts
        }
    except ValueError as error:
        raise BundleError(str(error)) from error
    expected = [*masks, masks[0]]  # probe.run predicts the first image a second time, in a batch of two
    agreement = {file: probe.mask_agreement(expected, found_masks) for file, found_masks in found.items()}
    for artifact in manifest.artifacts:
        needed = required_agreement(manifest, artifact)
        if agreement[artifact.file] < needed:
            raise BundleError(
                f"{bundle / artifact.file}: masks equal the probe's at {agreement[artifact.file]:.5f} of an image's "
                f"pixels, and {needed} are required; do not serve it on this machine, export it again"
            )
    highest = max(int(mask.max()) for found_masks in found.values() for mask in found_masks)
    if highest >= len(manifest.classes):
        raise BundleError(
            f"{bundle}: a mask contains class {highest}, and the manifest has {len(manifest.classes)} classes; "
            "export the bundle again"
        )
    if manifest.tensorrt:
        _check_tensorrt(bundle, manifest, manifest.tensorrt)
    if manifest.tile:
        _check_tile(bundle / manifest.tile.file, manifest.tile, len(manifest.classes))
    return Verified(manifest=manifest, images=len(images), agreement=agreement)


def verified_table(verified: Verified) -> str:
    """A Markdown table of the graphs."""
    manifest = verified.manifest
    rows = [
        [
            f"`{artifact.file}`",
            artifact.precision,
            f"{artifact.bytes / 1e6:.1f}",
            f"{100 * verified.agreement[artifact.file]:.3f} %",
            f"{100 * required_agreement(manifest, artifact):.3f} %",
        ]
        for artifact in manifest.artifacts
    ]
    if manifest.tile:
        rows.append([f"`{manifest.tile.file}`", "fp32", f"{manifest.tile.bytes / 1e6:.1f}", "probabilities", ""])
    return markdown_table(["graph", "precision", "MB", "agreement", "required"], rows)


def required_agreement(manifest: Manifest, artifact: Artifact) -> float:
    """Minimum fraction of equal probe pixels for a graph, [0, 1]."""
    own = artifact.probe_agreement
    return manifest.probe.tolerance.mask_agreement if own is None else own


def _check_tile(graph: Path, tile: Tile, classes: int) -> None:
    try:
        found_NKTU = run_tile_graph(graph, scene(*tile.window, seed=0)[None])
    except ValueError as error:
        raise BundleError(str(error)) from error
    if found_NKTU.shape != (1, classes, *tile.window) or not np.allclose(found_NKTU.sum(axis=1), 1, atol=1e-3):
        raise BundleError(
            f"{graph}: the output is not the probabilities of {classes} classes per pixel; export the bundle again"
        )


def _check_tensorrt(bundle: Path, manifest: Manifest, tensorrt: TensorRT) -> None:
    fp32 = {each.file: each.sha256 for each in manifest.artifacts if each.precision == "fp32"}
    options = tensorrt.provider_options
    # Some of onnxruntime's options load a library or write a file: accept only the exporter's.
    unknown = sorted(name for name, value in options.items() if name not in OPTIONS or not isinstance(value, str))
    if unknown:
        raise BundleError(
            f"{bundle}: `tensorrt.provider_options` has unknown options: {', '.join(unknown)}; do not use this bundle"
        )
    # A wrong key would run another graph's engine from the cache.
    key = f"{fp32.get(tensorrt.file, '?')[:16]}_"
    if not tensorrt.cache_key.startswith(key) or options.get(PREFIX) != tensorrt.cache_key:
        raise BundleError(f"{bundle}: `tensorrt` does not match the graph {tensorrt.file!r}; export the bundle again")


def _check_sums(bundle: Path, manifest: Manifest) -> None:
    for name, sha256 in manifest.files.items():
        file = bundle / name
        if not file.is_file():
            raise BundleError(f"{file}: missing; copy the bundle again")
        if sha256_of(file) != sha256:
            raise BundleError(f"{file}: its sha256 differs from the manifest's: altered or truncated; copy it again")
