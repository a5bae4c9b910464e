"""A model repository on disk: version folders appear complete or not at all, and what is there stays."""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from exporter.bundle import GRAPH, MANIFEST, BundleError, new_bundle, sha256_of
from exporter.manifest import Precision
from exporter.triton.config import (
    LABELS,
    TENSORRT,
    Backend,
    Options,
    encoded_config,
    labels,
    tensor_config,
    with_versions,
)
from exporter.triton.signature import read_signature
from exporter.triton.source import Source, choose, held
from exporter.verify import verify

CONFIG, PROGRAM = "config.pbtxt", "model.py"
PROGRAMS = Path(__file__).parent / "programs"
ENCODED = "_encoded"
LONGEST_NAME = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """Where a bundle stands in a repository."""

    model: str
    """The tensor model's name."""
    encoded: str
    """The name of the model that takes encoded images."""
    version: int
    """Triton's: the number of the folder."""
    is_new: bool
    """False: the graph was the newest version already, and no folder was added."""
    is_listed: bool
    """False: config.pbtxt does not list the version, as it lost the marks between which the exporter writes."""


def safe_name(name: str) -> str:
    """`name` with letters, digits, `_` and `-` alone, as it may stand in an address and name a folder.

    Raises:
        ValueError: Nothing of it is left.
    """
    safe = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-")[:LONGEST_NAME]
    if not safe:
        raise ValueError(f"{name!r} holds no letter or digit for a model's name: give another --name")
    return safe


def write_repository(
    bundle: Path,
    repository: Path,
    *,
    name: str = "",
    precision: Precision | None = None,
    options: Options | None = None,
    rewrite_config: bool = False,
) -> Written:
    """Put a bundle into a Triton model repository, as the next version of its model.

    Args:
        bundle: The bundle's folder; it is verified first.
        repository: What Triton calls --model-repository; made if it is not there.
        name: The model's; by default the bundle's. Made safe either way.
        precision: Which of the bundle's graphs. None: as the model's newest version, or fp32.
        options: For a config.pbtxt that is written: the first time, or with `rewrite_config`. None: the defaults.
        rewrite_config: Write config.pbtxt of both models anew where they are there already.

    Raises:
        BundleError: The bundle is not sound or has no such graph, or the repository's model has other classes or other
            tensors, or is none that this function wrote. Nothing was written then.
        ValueError: No model's name in `name`, or `options` that would not be heeded.
    """
    manifest = verify(bundle).manifest
    model = safe_name(name or manifest.name)
    folder, encoded = repository / model, repository / (model + ENCODED)
    old = _versions(folder)
    _check_encoded(encoded, folder)
    if old and options and not rewrite_config:
        raise ValueError(
            f"{folder / CONFIG} is kept as it is, so the options for it would not be heeded: edit it, or add "
            "--rewrite-config"
        )
    written = (options or Options()) if rewrite_config or not old else None
    tensorrt = written.tensorrt if written else TENSORRT in (folder / CONFIG).read_text(encoding="utf-8")
    precision = precision or (old[max(old)].artifact.precision if old else "fp32")
    source = choose(bundle, manifest, precision, tensorrt=tensorrt)
    if old:
        _check_same(old[max(old)], source)
    repository.mkdir(parents=True, exist_ok=True)
    if old:
        version, is_new = _add_version(folder, source, old, written)
    else:
        version, is_new = _make_tensor_model(folder, source, written or Options()), True
    _put_encoded_model(
        encoded, encoded_config(encoded.name, model, manifest, options or Options()), rewrite_config=rewrite_config
    )
    label = held(folder / str(version)).label
    is_listed = f'"{label}"' in (folder / CONFIG).read_text(encoding="utf-8")
    return Written(model=model, encoded=encoded.name, version=version, is_new=is_new, is_listed=is_listed)


def _versions(folder: Path) -> dict[int, Source]:
    """What each version folder of a tensor model holds, by number; empty where there is no such model.

    Raises:
        BundleError: Something else is there.
    """
    if not folder.exists():
        return {}
    try:
        found = {number: held(folder / str(number)) for number in _numbers(folder)}
    except (BundleError, FileNotFoundError):
        found = {}
    if not found or not (folder / CONFIG).is_file():
        raise BundleError(f"{folder} is there and no model of this command's: remove it, or give another --name")
    return found


def _numbers(folder: Path) -> list[int]:
    """Version folders of a model, as Triton counts: digits that do not begin with 0."""
    return sorted(int(path.name) for path in folder.iterdir() if re.fullmatch(r"[1-9][0-9]*", path.name))


def _check_encoded(encoded: Path, folder: Path) -> None:
    """Refuse a folder in the encoded model's place that is none of this command's, or of another tensor model."""
    if not encoded.exists():
        return
    programs = [encoded / str(number) / PROGRAM for number in _numbers(encoded)]
    ours = programs and all(program.is_file() for program in programs) and (encoded / CONFIG).is_file()
    if not ours or not folder.exists():
        raise BundleError(f"{encoded} is there without being {folder.name}'s: remove it, or give another --name")


def _check_same(newest: Source, source: Source) -> None:
    """Clients of a model rely on its classes and tensors: refuse a version that has others."""
    if newest.manifest.classes != source.manifest.classes:
        difference = "classes or colours"
    elif read_signature(newest.graph) != read_signature(source.graph):
        difference = "inputs or outputs"
    else:
        return
    raise BundleError(
        f"{newest.graph.parent} has other {difference} than this bundle, and the model's clients rely on them: give "
        "another --name for a model beside it"
    )


def _make_tensor_model(folder: Path, source: Source, options: Options) -> int:
    with new_bundle(folder) as new:
        # First, as it says another name than this folder has as yet: a Triton that polls takes it for no model.
        (new / CONFIG).write_text(_config(folder, source, {1: source}, options), encoding="utf-8")
        (new / LABELS).write_text(labels(source.manifest.classes), encoding="utf-8")
        _put_version(new / "1", source, options.backend)
    return 1


def _add_version(folder: Path, source: Source, old: dict[int, Source], options: Options | None) -> tuple[int, bool]:
    """Add a version folder, unless the newest one holds the same, and bring config.pbtxt up to date.

    Args:
        folder: The tensor model's.
        source: The version to add.
        old: What the version folders hold, by number.
        options: To write config.pbtxt anew; None: keep it.

    Returns:
        The version's number, and whether it is new.
    """
    newest = old[max(old)].graph
    backend = options.backend if options else _backend(newest)
    is_new = sha256_of(newest) != source.artifact.sha256 or _backend(newest) != backend
    number = max(old) + 1 if is_new else max(old)
    if is_new:
        _put_version(folder / str(number), source, backend)
    listed, file = (old | {number: source} if is_new else old), folder / CONFIG
    if options:
        _replace(file, _config(folder, source, listed, options))
    else:
        _replace(file, with_versions(file.read_text(encoding="utf-8"), _labels(listed)))
    return number, is_new


def _config(folder: Path, source: Source, listed: dict[int, Source], options: Options) -> str:
    return tensor_config(folder.name, read_signature(source.graph), source.manifest, _labels(listed), options)


def _labels(listed: dict[int, Source]) -> dict[int, str]:
    return {number: source.label for number, source in listed.items()}


def _put_version(folder: Path, source: Source, backend: Backend) -> None:
    with new_bundle(folder) as new:
        shutil.copyfile(source.graph, new / GRAPH)
        shutil.copyfile(source.graph.with_name(MANIFEST), new / MANIFEST)
        if backend == "python":
            shutil.copyfile(PROGRAMS / "tensor.py", new / PROGRAM)


def _backend(graph: Path) -> Backend:
    return "python" if graph.with_name(PROGRAM).exists() else "onnxruntime"


def _put_encoded_model(folder: Path, config: str, *, rewrite_config: bool) -> None:
    """Make it, or bring its program up to date by a version; it asks the tensor model's newest, so one is enough."""
    if not folder.exists():
        with new_bundle(folder) as new:
            (new / CONFIG).write_text(config, encoding="utf-8")
            _put_program(new / "1")
        return
    newest = max(_numbers(folder))
    if sha256_of(folder / str(newest) / PROGRAM) != sha256_of(PROGRAMS / "encoded.py"):
        _put_program(folder / str(newest + 1))
    if rewrite_config:
        _replace(folder / CONFIG, config)


def _put_program(folder: Path) -> None:
    with new_bundle(folder) as new:
        shutil.copyfile(PROGRAMS / "encoded.py", new / PROGRAM)


def _replace(file: Path, text: str) -> None:
    """Write a file that Triton may be reading: beside it, flushed, renamed; not at all if it says the same already."""
    if file.read_text(encoding="utf-8") == text:
        return
    partial = file.with_name(f".{file.name}.partial")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)
