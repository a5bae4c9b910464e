"""Is this bundle what it says? Format, checksums, and its own probe on onnxruntime."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exporter import probe
from exporter.bundle import BundleError, read_manifest, sha256_of
from exporter.manifest import Artifact, Manifest, TensorRT, Tile
from exporter.probe import Bytes, Ids, scene
from exporter.runtime import OnnxPredictor, ask_tile
from exporter.tensorrt.profile import OPTIONS, PREFIX


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """What was seen when a sound bundle was verified."""

    manifest: Manifest
    images: int
    """Probe images that were run."""
    agreement: dict[str, float]
    """By graph file: fraction of pixels equal to the stored mask, [0, 1], in the image where it is least."""

    @property
    def mask_agreement(self) -> float:
        """The fp32 graph's."""
        return self.agreement[next(each.file for each in self.manifest.artifacts if each.precision == "fp32")]


def verify(bundle: Path) -> Verified:
    """Check a bundle as the service does before it serves it.

    Raises:
        BundleError: Another format, a missing or altered file, a graph that does not load or is not a bundle's, or
            masks that differ from the probe's beyond the bundle's tolerance.
    """
    manifest = read_manifest(bundle)
    _check_sums(bundle, manifest)
    try:
        images, masks = probe.read_probe(bundle / manifest.probe.file)
        found = {artifact.file: _run(bundle / artifact.file, images) for artifact in manifest.artifacts}
    except ValueError as error:
        raise BundleError(str(error)) from error
    expected = [*masks, masks[0]]  # the last answer is the first image's again, in a batch of two
    agreement = {file: probe.mask_agreement(expected, answers) for file, answers in found.items()}
    for artifact in manifest.artifacts:
        least = needed(manifest, artifact)
        if agreement[artifact.file] < least:
            raise BundleError(
                f"{bundle / artifact.file}: masks equal the probe's at {agreement[artifact.file]:.5f} of an image's "
                f"pixels, and {least} are needed; do not serve it here, export it again"
            )
    highest = max(int(mask.max()) for answers in found.values() for mask in answers)
    if highest >= len(manifest.classes):
        raise BundleError(f"{bundle}: a mask holds class {highest}, the manifest names {len(manifest.classes)} classes")
    if manifest.tensorrt:
        _check_tensorrt(bundle, manifest, manifest.tensorrt)
    if manifest.tile:
        _check_tile(bundle / manifest.tile.file, manifest.tile, len(manifest.classes))
    return Verified(manifest=manifest, images=len(images), agreement=agreement)


def verified_table(verified: Verified) -> str:
    """What was seen, graph by graph, in Markdown."""
    manifest = verified.manifest
    rows = [
        [
            f"`{artifact.file}`",
            artifact.precision,
            f"{artifact.bytes / 1e6:.1f}",
            f"{100 * verified.agreement[artifact.file]:.3f} %",
            f"{100 * needed(manifest, artifact):.3f} %",
        ]
        for artifact in manifest.artifacts
    ]
    if manifest.tile:
        rows.append([f"`{manifest.tile.file}`", "fp32", f"{manifest.tile.bytes / 1e6:.1f}", "probabilities", ""])
    head = ["graph", "precision", "MB", "as stored", "needed"]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def needed(manifest: Manifest, artifact: Artifact) -> float:
    """What a graph's run of the probe must reach, [0, 1]."""
    own = artifact.probe_agreement
    return manifest.probe.tolerance.mask_agreement if own is None else own


def _run(graph: Path, images: list[Bytes]) -> list[Ids]:
    return [answer.mask for answer in probe.ask(OnnxPredictor(graph), images)]


def _check_tile(graph: Path, tile: Tile, classes: int) -> None:
    try:
        found_NKTU = ask_tile(graph, scene(*tile.window, seed=0)[None])
    except ValueError as error:
        raise BundleError(str(error)) from error
    if found_NKTU.shape != (1, classes, *tile.window) or not np.allclose(found_NKTU.sum(axis=1), 1, atol=1e-3):
        raise BundleError(f"{graph}: gives no probabilities of {classes} classes a pixel; export the bundle again")


def _check_tensorrt(bundle: Path, manifest: Manifest, told: TensorRT) -> None:
    plain = {each.file: each.sha256 for each in manifest.artifacts if each.precision == "fp32"}
    options = told.provider_options
    # An option may name a library to load or a file to write: none but the exporter's own is passed on.
    strange = sorted(name for name, value in options.items() if name not in OPTIONS or not isinstance(value, str))
    if strange:
        raise BundleError(f"{bundle}: `tensorrt` has options that are none of a bundle's: {', '.join(strange)}")
    # Engines are kept under the key: under a wrong one, another graph's would run.
    key = f"{plain.get(told.file, '?')[:16]}_"
    if not told.cache_key.startswith(key) or options.get(PREFIX) != told.cache_key:
        raise BundleError(f"{bundle}: `tensorrt` is not of the graph {told.file!r}; export the bundle again")


def _check_sums(bundle: Path, manifest: Manifest) -> None:
    for name, sha256 in manifest.files.items():
        file = bundle / name
        if not file.is_file():
            raise BundleError(f"{file}: missing; copy the bundle again")
        if sha256_of(file) != sha256:
            raise BundleError(f"{file}: its sha256 is not the manifest's: it was altered or cut short; copy it again")
