"""The graph for a new version of a model, and the graphs in the version folders of an existing one."""

import re
from dataclasses import dataclass
from pathlib import Path

from exporter.bundle import GRAPH, BundleError, read_manifest
from exporter.manifest import Artifact, Manifest, Precision


@dataclass(frozen=True, slots=True)
class Source:
    """One graph and the manifest of its bundle."""

    graph: Path
    """The file; manifest.json is in the same folder."""
    manifest: Manifest
    artifact: Artifact

    @property
    def label(self) -> str:
        """The version's entry in config.pbtxt: the bundle's version and the graph's file name."""
        return f"{self.manifest.version} {self.artifact.file}"


def choose_graph(bundle: Path, manifest: Manifest, precision: Precision, *, tensorrt: bool) -> Source:
    """Return the bundle's graph of a precision: with fused attention, which needs less memory, if there is one.

    TensorRT lacks onnxruntime's fused operators and gets the graph without them.

    Raises:
        BundleError: The bundle has no graph of this precision.
        ValueError: `tensorrt` with a precision other than fp32.
    """
    if tensorrt and precision != "fp32":
        raise ValueError(f"TensorRT converts the fp32 graph to fp16 itself: give --precision fp32, not {precision}")
    candidates = [artifact for artifact in manifest.artifacts if artifact.precision == precision]
    if not candidates:
        found = ", ".join(dict.fromkeys(artifact.precision for artifact in manifest.artifacts))
        raise BundleError(f"{bundle} has no graph of precision {precision}; give --precision with one of: {found}")
    rank = min if tensorrt else max
    artifact = rank(candidates, key=lambda artifact: artifact.fused_attention or 0)
    return Source(bundle / artifact.file, manifest, artifact)


def version_numbers(folder: Path) -> list[int]:
    """Return the numbers of a model's version folders, ascending."""
    return sorted(int(path.name) for path in folder.iterdir() if re.fullmatch(r"[1-9][0-9]*", path.name))


def read_version(folder: Path) -> Source:
    """Read a version folder. A graph that was edited since the export counts as the bundle's first artifact.

    Raises:
        BundleError: The folder has no manifest.
        FileNotFoundError: The folder has no graph.
    """
    manifest, graph = read_manifest(folder), folder / GRAPH
    size = graph.stat().st_size
    matching = (artifact for artifact in manifest.artifacts if artifact.bytes == size)
    return Source(graph, manifest, next(matching, manifest.artifacts[0]))
