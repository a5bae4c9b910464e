"""Read the lists of classes that data sets of masks come with.

| file                       | content                                                                   |
|----------------------------|---------------------------------------------------------------------------|
| classes.toml               | ours                                                                      |
| labelmap.txt               | CVAT, datumaro: name:red,green,blue:parts:actions                         |
| class_names.txt            | labelme: one name per line; a first line __ignore__ is 255                |
| id2label.json, classes.json | {"0": "road", ...}, or a list of names                                   |
| class_dict.csv             | a header with name, r, g, b                                               |
| _classes.csv               | Roboflow: Pixel Value, Class                                              |
| label_colors.txt           | CamVid: red green blue name                                               |
| classes.txt, labels.txt    | one name per line                                                         |
"""

import csv
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.data.classes_file import read_classes
from trainer.data.imports.source.annotated import VOID, Color, SourceClass
from trainer.data.imports.source.source_error import SourceError
from trainer.data.imports.source.source_folder import SourceFolder
from trainer.data.mask_encoding import MaskEncoding
from trainer.data.readers.voc_class_files import IGNORED_NAME, read_class_file

COLOR_LINE = re.compile(r"(\d+)[\s,]+(\d+)[\s,]+(\d+)[\s,]+(.+)")


@dataclass(frozen=True, slots=True)
class ClassList:
    """Classes, with the values of masks that store numbers.

    Attributes:
        values: stored value by position.
        encoding: how masks store the classes, if the file says so; ids are positions, VOID is ignored.
    """

    classes: Sequence[SourceClass]
    values: Sequence[int]
    encoding: MaskEncoding | None = None


def find_class_list(source: SourceFolder) -> str | None:
    """The list of classes nearest to the root; None if there is none."""
    found = [file for name in READERS for file in source.named(name)]
    return min(found, key=lambda file: file.count("/"), default=None)


def read_class_list(path: Path) -> ClassList:
    """Read a list of classes by its name, or by its suffix if the name is another one. Raises SourceError."""
    name = path.name.casefold()
    reader = READERS.get(name) or BY_SUFFIX.get(path.suffix.lower())
    if reader is None:
        raise SourceError(f"{path}: is no list of classes; write one name per line into a file {path.stem}.txt")
    try:
        found = reader(path)
    except SourceError:
        raise
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise SourceError(f"{path}: is not a readable list of classes ({error}); correct it") from error
    if not found.classes:
        raise SourceError(f"{path}: lists no classes; write one name per line")
    return found


def listed_names(names: Sequence[str]) -> ClassList:
    """Classes whose value is their position."""
    return ClassList([SourceClass(name) for name in names], range(len(names)))


def _toml(path: Path) -> ClassList:
    taxonomy, encoding = read_classes(path)
    return _known(taxonomy.names, taxonomy.colors, encoding)


def _voc(path: Path) -> ClassList:
    taxonomy, encoding = read_class_file(path)
    return _known(taxonomy.names, taxonomy.colors, encoding)


def _known(names: Sequence[str], colors: Sequence[Color], encoding: MaskEncoding) -> ClassList:
    classes = [SourceClass(name, color) for name, color in zip(names, colors, strict=True)]
    return ClassList(classes, range(len(names)), with_void(encoding))


def with_void(encoding: MaskEncoding) -> MaskEncoding:
    """The encoding with VOID for ignored values."""
    pairs = ((value, VOID if index == encoding.ignore_index else index) for value, index in encoding.id_of_value)
    return MaskEncoding(tuple(pairs), VOID, encoding.colors)


def _json(path: Path) -> ClassList:
    table = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(table, list) and all(isinstance(name, str) for name in table):
        return listed_names(table)
    if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
        raise SourceError(f'{path}: must be {{"0": "road", ...}} or a list of names; correct it')
    pairs = sorted((int(value), name) for value, name in table.items())
    return ClassList([SourceClass(name) for _, name in pairs], [value for value, _ in pairs])


def _csv(path: Path) -> ClassList:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file, skipinitialspace=True) if row]
    head = [cell.casefold() for cell in rows[0]]
    if {"pixel value", "class"} <= set(head):
        value, name = head.index("pixel value"), head.index("class")
        return ClassList([SourceClass(row[name]) for row in rows[1:]], [int(row[value]) for row in rows[1:]])
    if {"name", "r", "g", "b"} <= set(head):
        name, red, green, blue = (head.index(key) for key in ("name", "r", "g", "b"))
        colors = [(int(row[red]), int(row[green]), int(row[blue])) for row in rows[1:]]
        classes = [SourceClass(row[name], color) for row, color in zip(rows[1:], colors, strict=True)]
        return ClassList(classes, range(len(classes)))
    raise SourceError(f"{path}: its header must have name, r, g, b, or Pixel Value, Class; correct it")


def _lines(path: Path) -> ClassList:
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if lines and all(COLOR_LINE.fullmatch(line) for line in lines):
        return _color_lines(path)
    ignored = lines[:1] == [IGNORED_NAME]
    return listed_names(lines[1:] if ignored else lines)


def _color_lines(path: Path) -> ClassList:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    found = [match for line in lines if (match := COLOR_LINE.fullmatch(line.strip()))]
    if not found:
        # datumaro's has no colours.
        return _lines_of_names(lines)
    classes = [SourceClass(match[4].strip(), (int(match[1]), int(match[2]), int(match[3]))) for match in found]
    return ClassList(classes, range(len(classes)))


def _lines_of_names(lines: Sequence[str]) -> ClassList:
    return listed_names([line.strip() for line in lines if line.strip() and not line.startswith("#")])


READERS: dict[str, Callable[[Path], ClassList]] = {
    "classes.toml": _toml,
    "labelmap.txt": _voc,
    "class_names.txt": _voc,
    "id2label.json": _json,
    "classes.json": _json,
    "class_dict.csv": _csv,
    "_classes.csv": _csv,
    "label_colors.txt": _color_lines,
    "classes.txt": _lines,
    "labels.txt": _lines,
}
BY_SUFFIX: dict[str, Callable[[Path], ClassList]] = {".toml": _toml, ".json": _json, ".csv": _csv, ".txt": _lines}
