"""From a bundle in a folder to a model that may answer: loaded, and its probe passed here."""

from __future__ import annotations

from dataclasses import dataclass

from service.models.bundle import Artifact, Bundle, Manifest, read_bundle
from service.models.precision import choose
from service.models.predictor_factory import by_its_rule
from service.segmentation.inference.engine import Engine
from service.segmentation.inference.memory_budget import MemoryBudget
from service.segmentation.inference.predictor import Predictor
from service.segmentation.inference.probe import run_probe
from service.segmentation.inference.providers import expected_provider
from service.segmentation.output.class_table import ClassTable
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A bundle and the engine that runs one of its graphs. Requests hold it while they need it; then its memory goes.

    Attributes:
        bundle: Where it is from.
        artifact: The graph of it that answers.
        engine: Who answers: what runs that graph, or windows where the run judged by them.
        class_table: Names and colours of the classes.
    """

    bundle: Bundle
    artifact: Artifact
    engine: Predictor
    class_table: ClassTable

    @property
    def version(self) -> str:
        """The bundle's version."""
        return self.bundle.manifest.version


def load_model(bundle: Bundle, settings: Settings) -> LoadedModel:
    """Compare the bundle's files with their sums, load a graph, and run its probe, which also warms it up.

    Raises:
        BundleInvalid: Any of that failed, and would fail again.
        Unavailable: It is not the bundle's fault: the disk, the memory, CUDA demanded and not working.
    """
    manifest = read_bundle(bundle.folder).manifest
    artifact, engine = _load(bundle, settings)
    needed = _needed(manifest, artifact)
    run_probe(engine, bundle.folder / manifest.probe.file, mask_agreement=needed)
    legend = ClassTable(
        names=tuple(c.name for c in manifest.classes),
        colors=tuple(c.color for c in manifest.classes),
        ignore_index=manifest.ignore_index,
    )
    return LoadedModel(bundle, artifact, by_its_rule(bundle, engine, settings, needed), legend)


def _needed(manifest: Manifest, artifact: Artifact) -> float:
    own = artifact.probe_agreement
    return manifest.probe.tolerance.mask_agreement if own is None else own


def _load(bundle: Bundle, settings: Settings) -> tuple[Artifact, Engine]:
    """The graph that suits the place where it runs, which is known for certain only when one has been loaded."""
    expected = expected_provider(settings.device)
    artifact = choose(bundle.manifest, settings.precision, expected, settings.device)
    engine = _open(bundle, artifact, settings)
    if engine.provider == expected:
        return artifact, engine
    other = choose(bundle.manifest, settings.precision, engine.provider, settings.device)
    return other, engine if other == artifact else _open(bundle, other, settings)


def _open(bundle: Bundle, artifact: Artifact, settings: Settings) -> Engine:
    manifest, tensorrt = bundle.manifest, bundle.manifest.tensorrt
    return Engine(
        bundle.folder / artifact.file,
        threads=settings.threads,
        device=settings.device,
        budget=MemoryBudget(
            max_bytes=settings.max_inference_bytes,
            max_native_pixels=settings.max_native_pixels,
            classes=len(manifest.classes),
            long_side=manifest.inference.long_side,
            patch=manifest.inference.multiple,
            fused_attention=bool(artifact.fused_attention),
        ),
        max_batch=settings.max_batch,
        tensorrt=tensorrt.provider_options if tensorrt else None,
        engine_cache=settings.data_dir / "tensorrt" / tensorrt.cache_key if tensorrt else None,
    )
