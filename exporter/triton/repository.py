"""Write a model repository: version folders appear complete or not at all, and existing ones are never changed."""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from exporter.bundle import GRAPH, MANIFEST, BundleError, new_bundle, read_manifest, sha256_of
from exporter.manifest import Artifact, Manifest, Precision
from exporter.triton.config import (
    LABELS,
    TENSORRT,
    Backend,
    Options,
    encoded_config,
    labels_text,
    tensor_config,
    tensor_entries,
    update_versions,
)
from exporter.verify import verify

CONFIG, PROGRAM = "config.pbtxt", "model.py"
PROGRAMS = Path(__file__).parent / "programs"
ENCODED = "_encoded"
MAX_NAME_LENGTH = 100
EMBEDDING = 'name: "embedding"'
"""Text in the entry of the optional output."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenModel:
    """Names of a bundle's models in a repository, and the number of their version folder."""

    model: str
    encoded: str
    version: int
    is_new: bool
    """False: the newest version already had this graph."""
    is_listed: bool
    """False: config.pbtxt lacks the version, because the markers of its list were removed."""


@dataclass(frozen=True, slots=True)
class _Source:
    """A graph file and the manifest in its folder."""

    graph: Path
    manifest: Manifest
    artifact: Artifact

    @property
    def label(self) -> str:
        """The version's entry in config.pbtxt."""
        return f"{self.manifest.version} {self.artifact.file}"


def safe_name(name: str) -> str:
    """Reduce `name` to letters, digits, `_` and `-`. Raises ValueError if none is left."""
    safe = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-")[:MAX_NAME_LENGTH]
    if not safe:
        raise ValueError(f"{name!r} has no letter or digit for a model's name: give another --name")
    return safe


def write_repository(
    bundle: Path,
    repository: Path,
    *,
    name: str = "",
    precision: Precision | None = None,
    options: Options | None = None,
    rewrite_config: bool = False,
) -> WrittenModel:
    """Verify a bundle and add it to a Triton model repository, as the next version of its model.

    The model's name is the `safe_name` of `name` or the bundle's name. `precision` None: that of the newest version, or
    fp32. `options` are for a new config.pbtxt; `rewrite_config` replaces that of both models.

    Raises:
        BundleError: The bundle is invalid or has no such graph; or the model in the repository has other classes or
            tensors, or was not written by this function. Nothing is written.
        ValueError: `name` has no usable character, or `options` are given for a config.pbtxt that is kept.
    """
    manifest = verify(bundle).manifest
    model = safe_name(name or manifest.name)
    folder, encoded = repository / model, repository / (model + ENCODED)
    old = _read_versions(folder)
    _check_encoded(encoded, folder)
    keep_config = bool(old) and not rewrite_config
    if options and keep_config:
        raise ValueError(
            f"{folder / CONFIG} exists and is kept, so the options for it would have no effect: edit it, or add "
            "--rewrite-config"
        )
    options = options or Options()
    tensorrt = TENSORRT in (folder / CONFIG).read_text(encoding="utf-8") if keep_config else options.tensorrt
    precision = precision or (old[max(old)].artifact.precision if old else "fp32")
    source = _choose_graph(bundle, manifest, precision, tensorrt=tensorrt)
    if old:
        kept = (folder / CONFIG).read_text(encoding="utf-8") if keep_config else ""
        _check_same(old[max(old)], source, lists_embedding=EMBEDDING in kept)
        version, is_new = _add_version(folder, source, old, None if keep_config else options)
    else:
        version, is_new = 1, True
        _create_tensor_model(folder, source, options)
    config = encoded_config(encoded.name, model, manifest, options)
    _write_encoded_model(encoded, config, rewrite_config=rewrite_config)
    label = _read_version(folder / str(version)).label
    is_listed = f'"{label}"' in (folder / CONFIG).read_text(encoding="utf-8")
    return WrittenModel(model=model, encoded=encoded.name, version=version, is_new=is_new, is_listed=is_listed)


def _choose_graph(bundle: Path, manifest: Manifest, precision: Precision, *, tensorrt: bool) -> _Source:
    """The bundle's graph of a precision: with fused attention, which needs less memory, except for TensorRT."""
    if tensorrt and precision != "fp32":
        raise ValueError(f"TensorRT converts the fp32 graph to fp16 itself: give --precision fp32, not {precision}")
    candidates = [artifact for artifact in manifest.artifacts if artifact.precision == precision]
    if not candidates:
        found = ", ".join(dict.fromkeys(artifact.precision for artifact in manifest.artifacts))
        raise BundleError(f"{bundle} has no graph of precision {precision}; give --precision with one of: {found}")
    rank = min if tensorrt else max
    artifact = rank(candidates, key=lambda artifact: artifact.fused_attention or 0)
    return _Source(bundle / artifact.file, manifest, artifact)


def _version_numbers(folder: Path) -> list[int]:
    """The numbers of a model's version folders, ascending."""
    return sorted(int(path.name) for path in folder.iterdir() if re.fullmatch(r"[1-9][0-9]*", path.name))


def _read_version(folder: Path) -> _Source:
    """Read a version folder. A graph edited since the export counts as the bundle's first artifact."""
    manifest, graph = read_manifest(folder), folder / GRAPH
    size = graph.stat().st_size
    matching = (artifact for artifact in manifest.artifacts if artifact.bytes == size)
    return _Source(graph, manifest, next(matching, manifest.artifacts[0]))


def _read_versions(folder: Path) -> dict[int, _Source]:
    """The versions of a tensor model, by number; raises BundleError if the folder holds something else."""
    if not folder.exists():
        return {}
    try:
        found = {number: _read_version(folder / str(number)) for number in _version_numbers(folder)}
    except (BundleError, FileNotFoundError):
        found = {}
    if not found or not (folder / CONFIG).is_file():
        raise BundleError(f"{folder} exists and was not written by this command: remove it, or give another --name")
    return found


def _check_encoded(encoded: Path, folder: Path) -> None:
    """Raise BundleError if the encoded model is not the tensor model's."""
    if not encoded.exists():
        return
    programs = [encoded / str(number) / PROGRAM for number in _version_numbers(encoded)]
    ours = programs and all(program.is_file() for program in programs) and (encoded / CONFIG).is_file()
    if not ours or not folder.exists():
        raise BundleError(f"{encoded} exists and does not belong to {folder.name}: remove it, or give another --name")


def _without_embedding(graph: Path) -> list[str]:
    """The entries of config.pbtxt without the optional output: a configuration need not list it."""
    return [entry for entry in tensor_entries(graph).splitlines() if EMBEDDING not in entry]


def _check_same(newest: _Source, source: _Source, *, lists_embedding: bool) -> None:
    if newest.manifest.classes != source.manifest.classes:
        difference = "classes or colours"
    elif newest.manifest.value_range != source.manifest.value_range:
        difference = "black and white values (data.range)"
    elif _without_embedding(newest.graph) != _without_embedding(source.graph):
        difference = "inputs or outputs"
    elif lists_embedding and tensor_entries(newest.graph) != tensor_entries(source.graph):
        difference = "embeddings (config.pbtxt lists their length)"
    else:
        return
    raise BundleError(
        f"{newest.graph.parent} has other {difference} than this bundle, and the model's clients rely on them: give "
        "another --name to write a separate model"
    )


def _create_tensor_model(folder: Path, source: _Source, options: Options) -> None:
    with new_bundle(folder) as new:
        # First, because its name differs from the temporary folder's: a polling Triton does not load the folder then.
        (new / CONFIG).write_text(_config(folder, source, {1: source}, options), encoding="utf-8")
        (new / LABELS).write_text(labels_text(source.manifest.classes), encoding="utf-8")
        _write_version(new / "1", source, options.backend)


def _add_version(folder: Path, source: _Source, old: dict[int, _Source], options: Options | None) -> tuple[int, bool]:
    """Add a version, unless the newest one has the same content; return its number, and whether it is new.

    With `options` config.pbtxt is replaced, otherwise only its list of versions.
    """
    newest = old[max(old)].graph
    backend = options.backend if options else _backend(newest)
    is_new = sha256_of(newest) != source.artifact.sha256 or _backend(newest) != backend
    number = max(old) + 1 if is_new else max(old)
    if is_new:
        _write_version(folder / str(number), source, backend)
        old = old | {number: source}
    file = folder / CONFIG
    if options:
        _replace(file, _config(folder, source, old, options))
    else:
        _replace(file, update_versions(file.read_text(encoding="utf-8"), _labels(old)))
    return number, is_new


def _config(folder: Path, source: _Source, versions: dict[int, _Source], options: Options) -> str:
    return tensor_config(folder.name, tensor_entries(source.graph), source.manifest, _labels(versions), options)


def _labels(versions: dict[int, _Source]) -> dict[int, str]:
    return {number: source.label for number, source in versions.items()}


def _write_version(folder: Path, source: _Source, backend: Backend) -> None:
    with new_bundle(folder) as new:
        shutil.copyfile(source.graph, new / GRAPH)
        shutil.copyfile(source.graph.with_name(MANIFEST), new / MANIFEST)
        if backend == "python":
            shutil.copyfile(PROGRAMS / "tensor.py", new / PROGRAM)


def _backend(graph: Path) -> Backend:
    return "python" if graph.with_name(PROGRAM).exists() else "onnxruntime"


def _write_encoded_model(folder: Path, config: str, *, rewrite_config: bool) -> None:
    """Create the model, or add a version if its program has changed."""
    if not folder.exists():
        with new_bundle(folder) as new:
            (new / CONFIG).write_text(config, encoding="utf-8")
            _write_program(new / "1")
        return
    newest = max(_version_numbers(folder))
    if sha256_of(folder / str(newest) / PROGRAM) != sha256_of(PROGRAMS / "encoded.py"):
        _write_program(folder / str(newest + 1))
    if rewrite_config:
        _replace(folder / CONFIG, config)


def _write_program(folder: Path) -> None:
    with new_bundle(folder) as new:
        shutil.copyfile(PROGRAMS / "encoded.py", new / PROGRAM)


def _replace(file: Path, text: str) -> None:
    """Replace a file that Triton may be reading, unless the text is equal."""
    if file.read_text(encoding="utf-8") == text:
        return
    partial = file.with_name(f".{file.name}.partial")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)
