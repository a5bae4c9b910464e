"""From a bundle in a folder to a model that may answer: loaded, and its probe passed here."""

from __future__ import annotations

from dataclasses import dataclass

from service.models.bundle import Bundle, read_bundle
from service.segmentation.budget import Budget
from service.segmentation.engine import Engine
from service.segmentation.legend import Legend
from service.segmentation.probe import run_probe
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A bundle and the engine that runs it. Requests hold it while they need it; then its memory goes."""

    bundle: Bundle
    engine: Engine
    legend: Legend

    @property
    def version(self) -> str:
        """The bundle's version."""
        return self.bundle.manifest.version


def load_model(bundle: Bundle, settings: Settings) -> LoadedModel:
    """Compare the bundle's files with their sums, load its graph, and run its probe, which also warms it up.

    Raises:
        BundleInvalid: Any of that failed, and would fail again.
        Unavailable: It is not the bundle's fault: the disk, the memory, CUDA demanded and not working.
    """
    manifest = read_bundle(bundle.folder).manifest
    native = manifest.inference.long_side == 0
    engine = Engine(
        bundle.graph,
        threads=settings.threads,
        device=settings.device,
        budget=Budget(
            max_bytes=settings.max_inference_bytes,
            max_native_pixels=settings.max_native_pixels if native else None,
            classes=len(manifest.classes),
            patch=manifest.inference.multiple,
        ),
    )
    run_probe(engine, bundle.folder / manifest.probe.file, mask_agreement=manifest.probe.tolerance.mask_agreement)
    legend = Legend(
        names=tuple(c.name for c in manifest.classes),
        colors=tuple(c.color for c in manifest.classes),
        ignore_index=manifest.ignore_index,
    )
    return LoadedModel(bundle, engine, legend)
