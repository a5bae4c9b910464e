"""Verify a bundle: format, checksums, and the masks of its probe images with onnxruntime."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exporter import probe
from exporter.bundle import BundleError, read_manifest, sha256_of
from exporter.manifest import Artifact, Manifest, TensorRT, Tile
from exporter.model_card import markdown_table
from exporter.probe import Embedding, Prediction, scene
from exporter.runtime import OnnxPredictor, run_tile_graph
from exporter.tensorrt.profile import OPTIONS, PREFIX


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """A valid bundle's manifest and number of probe images."""

    manifest: Manifest
    images: int
    agreement: dict[str, float]
    """Fraction of equal pixels in the worst image, by graph file, [0, 1]."""

    embedding_cosine: dict[str, float]
    """Smallest cosine of an image's embedding with the stored one, by graph file; empty without embeddings."""

    @property
    def mask_agreement(self) -> float:
        """The agreement of the fp32 graph."""
        return self.agreement[next(each.file for each in self.manifest.artifacts if each.precision == "fp32")]


def verify(bundle: Path) -> Verified:
    """Check a bundle as the service does before it serves the bundle.

    Raises BundleError if the manifest is invalid, a file is missing or altered, a graph is not a bundle's, or its masks
    or embeddings differ from the probe's beyond the tolerance.
    """
    manifest = read_manifest(bundle)
    _check_sums(bundle, manifest)
    try:
        images, masks, embeddings = probe.read_probe(bundle / manifest.probe.file)
        found = {
            artifact.file: probe.run(OnnxPredictor(bundle / artifact.file), images) for artifact in manifest.artifacts
        }
        cosines = _embedding_cosines(manifest, found, embeddings)
    except ValueError as error:
        raise BundleError(str(error)) from error
    expected = [*masks, masks[0]]  # probe.run predicts the first image a second time, in a batch of two
    agreement = {
        file: probe.mask_agreement(expected, [each.mask for each in predictions]) for file, predictions in found.items()
    }
    _check_required(bundle, manifest, agreement, cosines)
    highest = max(int(each.mask.max()) for predictions in found.values() for each in predictions)
    if highest >= len(manifest.classes):
        raise BundleError(
            f"{bundle}: a mask contains class {highest}, and the manifest has {len(manifest.classes)} classes; "
            "export the bundle again"
        )
    if manifest.tensorrt:
        _check_tensorrt(bundle, manifest, manifest.tensorrt)
    if manifest.tile:
        _check_tile(bundle / manifest.tile.file, manifest.tile, manifest)
    return Verified(manifest=manifest, images=len(images), agreement=agreement, embedding_cosine=cosines)


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
            *([f"{verified.embedding_cosine[artifact.file]:.6f}"] if verified.embedding_cosine else []),
        ]
        for artifact in manifest.artifacts
    ]
    if manifest.tile:
        rows.append([f"`{manifest.tile.file}`", "fp32", f"{manifest.tile.bytes / 1e6:.1f}", "probabilities", ""])
    head = ["graph", "precision", "MB", "agreement", "required"]
    if verified.embedding_cosine:
        head.append("cosine of embeddings")
        rows = [[*row, *[""] * (len(head) - len(row))] for row in rows]
    return markdown_table(head, rows)


def required_agreement(manifest: Manifest, artifact: Artifact) -> float:
    """Minimum fraction of equal probe pixels for a graph, [0, 1]."""
    own = artifact.probe_agreement
    return manifest.probe.tolerance.mask_agreement if own is None else own


def _embedding_cosines(
    manifest: Manifest, found: dict[str, list[Prediction]], stored: list[Embedding | None]
) -> dict[str, float]:
    """Smallest cosine of an image's embedding with the stored one, by graph file; raises ValueError if one lacks."""
    if manifest.embedding is None:
        return {}
    for each in (*stored, *(each.embedding for predictions in found.values() for each in predictions)):
        if each is None or each.shape != (manifest.embedding.dimensions,):
            raise ValueError(
                f"{manifest.name}: an embedding is missing or does not have the manifest's "
                f"{manifest.embedding.dimensions} dimensions; export the bundle again"
            )
    expected = [*stored, stored[0]]
    cosines = {
        file: probe.embedding_cosine(expected, [each.embedding for each in predictions])
        for file, predictions in found.items()
    }
    return {file: cosine for file, cosine in cosines.items() if cosine is not None}


def _check_required(bundle: Path, manifest: Manifest, agreement: dict[str, float], cosines: dict[str, float]) -> None:
    remedy = "do not serve it on this machine, export it again"
    for artifact in manifest.artifacts:
        needed = required_agreement(manifest, artifact)
        if agreement[artifact.file] < needed:
            raise BundleError(
                f"{bundle / artifact.file}: masks equal the probe's at {agreement[artifact.file]:.5f} of an image's "
                f"pixels, and {needed} are required; {remedy}"
            )
        found, min_cosine = cosines.get(artifact.file), artifact.min_embedding_cosine
        if found is not None and min_cosine is not None and found < min_cosine:
            raise BundleError(
                f"{bundle / artifact.file}: the cosine of an embedding with the probe's is {found:.5f}, and "
                f"{min_cosine} is required; {remedy}"
            )


def _check_tile(graph: Path, tile: Tile, manifest: Manifest) -> None:
    classes, embedding = len(manifest.classes), manifest.embedding
    try:
        found_NKTU, found_ND = run_tile_graph(graph, scene(*tile.window, seed=0)[None])
    except ValueError as error:
        raise BundleError(str(error)) from error
    if embedding and (found_ND is None or found_ND.shape != (1, embedding.dimensions)):
        raise BundleError(
            f"{graph}: it does not return the embedding of {embedding.dimensions} dimensions; export the bundle again"
        )
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
