"""Load a bundle: verify its checksums, open a graph and run its probe."""

from __future__ import annotations

from dataclasses import dataclass

from service.models.bundle import Artifact, Bundle, Manifest, read_bundle
from service.models.precision import choose
from service.models.predictor_factory import make_predictor
from service.segmentation.formats.rgb import ValueRange
from service.segmentation.inference.engine import Engine
from service.segmentation.inference.memory_budget import MemoryBudget
from service.segmentation.inference.predictor import Predictor
from service.segmentation.inference.probe import run_probe
from service.segmentation.inference.providers import expected_provider
from service.segmentation.output.class_table import ClassTable
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A bundle with a predictor, whose memory is freed with the last reference.

    `engine` runs the graph `artifact`, or the window's graph if the bundle uses sliding windows.
    """

    bundle: Bundle
    artifact: Artifact
    engine: Predictor
    class_table: ClassTable
    classes_version: int | None = None
    """Version of the class list from which `class_table` is; None: from the bundle."""

    @property
    def value_range(self) -> ValueRange | None:
        """Values that are black and white in images with more than 8 bits, if the bundle declares them."""
        return self.bundle.manifest.value_range

    @property
    def version(self) -> str:
        """Version of the bundle."""
        return self.bundle.manifest.version


def load_model(bundle: Bundle, settings: Settings) -> LoadedModel:
    """Verify a bundle's checksums, load the graph that suits this machine, and run its probe, which also warms it up.

    Raises BundleInvalid if a check failed, and would fail again, or Unavailable for a fault of the machine.
    """
    manifest = read_bundle(bundle.folder).manifest
    artifact, engine = _load(bundle, settings)
    mask_agreement = _required_agreement(manifest, artifact)
    min_cosine = artifact.min_embedding_cosine if manifest.embedding else None
    run_probe(
        engine,
        bundle.folder / manifest.probe.file,
        mask_agreement=mask_agreement,
        min_embedding_cosine=min_cosine,
    )
    class_table = ClassTable(
        names=tuple(c.name for c in manifest.classes),
        colors=tuple(c.color for c in manifest.classes),
        ignore_index=manifest.ignore_index,
    )
    predictor = make_predictor(bundle, engine, settings, mask_agreement, min_cosine)
    return LoadedModel(bundle, artifact, predictor, class_table)


def _required_agreement(manifest: Manifest, artifact: Artifact) -> float:
    own = artifact.probe_agreement
    return manifest.probe.tolerance.mask_agreement if own is None else own


def _load(bundle: Bundle, settings: Settings) -> tuple[Artifact, Engine]:
    """Choose a graph by the expected provider; choose again if onnxruntime runs it on another."""
    expected = expected_provider(settings.device)
    artifact = choose(bundle.manifest, settings.precision, expected, settings.device)
    engine = _open_engine(bundle, artifact, settings)
    if engine.provider == expected:
        return artifact, engine
    other = choose(bundle.manifest, settings.precision, engine.provider, settings.device)
    return other, engine if other == artifact else _open_engine(bundle, other, settings)


def _open_engine(bundle: Bundle, artifact: Artifact, settings: Settings) -> Engine:
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
        embedding=manifest.embedding_dimensions,
        tensorrt=tensorrt.provider_options if tensorrt else None,
        engine_cache=settings.data_dir / "tensorrt" / tensorrt.cache_key if tensorrt else None,
    )
