"""Which of a bundle's graphs a repository gets, and which one a version folder of it holds."""

from dataclasses import dataclass
from pathlib import Path

from exporter.bundle import GRAPH, BundleError, read_manifest
from exporter.manifest import Artifact, Manifest, Precision


@dataclass(frozen=True, slots=True)
class Source:
    """One graph, and the bundle that it is of."""

    graph: Path
    """The file; manifest.json lies beside it."""
    manifest: Manifest
    artifact: Artifact

    @property
    def label(self) -> str:
        """How config.pbtxt lists it."""
        return f"{self.manifest.version} {self.artifact.file}"


def choose(bundle: Path, manifest: Manifest, precision: Precision, *, tensorrt: bool) -> Source:
    """A bundle's graph of some precision: with onnxruntime's own attention if there is one, as it takes less memory.

    Raises:
        BundleError: The bundle has none.
        ValueError: TensorRT, which has no use for onnxruntime's operators, and another precision than fp32.
    """
    if tensorrt and precision != "fp32":
        raise ValueError(f"TensorRT makes its own fp16 of the fp32 graph: give --precision fp32, not {precision}")
    fitting = [artifact for artifact in manifest.artifacts if artifact.precision == precision]
    if not fitting:
        found = ", ".join(dict.fromkeys(artifact.precision for artifact in manifest.artifacts))
        raise BundleError(f"{bundle} has no graph of precision {precision}: it has {found}")
    rank = min if tensorrt else max
    artifact = rank(fitting, key=lambda artifact: artifact.fused_attention or 0)
    return Source(bundle / artifact.file, manifest, artifact)


def held(version: Path) -> Source:
    """What a version folder holds; a graph that was changed since counts as its bundle's first.

    Raises:
        BundleError: No manifest in the folder.
        FileNotFoundError: No graph in it.
    """
    manifest, graph = read_manifest(version), version / GRAPH
    size = graph.stat().st_size
    same = (artifact for artifact in manifest.artifacts if artifact.bytes == size)
    return Source(graph, manifest, next(same, manifest.artifacts[0]))
