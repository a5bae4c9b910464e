"""Decide what the values of masks mean.

Without a list of classes:

| values in all masks together           | taken for                                     |
|----------------------------------------|-----------------------------------------------|
| 0 and 255, or 0 and 1                  | background and foreground                     |
| other numbers                          | one class for each number; 255 is ignored     |
| colours                                | one class for each colour                     |
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from trainer.data.imports.pixel_masks.class_lists import ClassList
from trainer.data.imports.pixel_masks.mask_content import MaskContent
from trainer.data.imports.source.annotated import VOID, Color, SourceClass
from trainer.data.imports.source.loss_report import Losses
from trainer.data.imports.source.source_error import SourceError
from trainer.data.mask_encoding import MaskEncoding

MAX_CLASSES = 256
"""Different values of masks without a list of classes; more are those of photographs."""
MAX_NAMED = 8
NEAR = 32
"""JPEG changes black and white by less."""
BINARY = ("background", "foreground")
UNNAMED = "the source has no list of classes; they are named by the values of the masks"
NAME_THEM = "--class-names NAME ... or --classes FILE names them"
TWO_VALUES = "all masks are black and white: black is the first class, white the second"
IGNORED_255 = "the value 255 is ignored"
NOT_CONSECUTIVE = (
    "the values of the masks are not consecutive: if they were colours or palette indices once, a conversion to grey "
    "has changed them"
)
LOSSY = "JPEG changes the values of masks, so that classes cannot be told apart; export them as PNG"


@dataclass(frozen=True, slots=True)
class MaskMeaning:
    """The classes of masks, and how values become their positions.

    Attributes:
        numbers: encoding of masks with one channel.
        colors: encoding of masks with several channels.
        is_binary: the masks are black and white, whatever the encodings say.
    """

    classes: Sequence[SourceClass]
    numbers: MaskEncoding
    colors: MaskEncoding
    is_binary: bool = False


def decide_meaning(
    contents: Sequence[MaskContent], listed: ClassList | None, ignored: Sequence[int], losses: Losses
) -> MaskMeaning:
    """Decide what the values of readable masks mean; `ignored` are values that the user ignores.

    Raises SourceError if the masks store values that are not listed, or too many, or are JPEGs with several classes.
    """
    is_grey = all(content.is_grey for content in contents)
    numbers = frozenset().union(*(content.numbers for content in contents if content.is_grey)) - set(ignored)
    is_lossy = any(content.lossy for content in contents)
    if is_grey and (binary := _binary(numbers, listed, is_lossy=is_lossy)):
        losses.add("black-and-white masks", TWO_VALUES, ", ".join(each.name for each in binary.classes))
        return binary
    if is_lossy:
        lossy = [content.name for content in contents if content.lossy]
        raise SourceError(f"{', '.join(lossy[:MAX_NAMED])}: {LOSSY}")
    if listed:
        meaning = _of_list(contents, listed, ignored)
        _check_listed(contents, meaning)
        return meaning
    losses.add("unnamed classes", UNNAMED, "", remedy=NAME_THEM)
    return _of_numbers(contents, numbers, ignored, losses) if is_grey else _of_colors(contents)


def _binary(numbers: frozenset[int], listed: ClassList | None, *, is_lossy: bool) -> MaskMeaning | None:
    """The meaning of black-and-white masks; None if they are none."""
    plain = {_without_noise(number) for number in numbers} if is_lossy else numbers
    # Of two listed classes, 1 is the second anyway.
    is_one = plain <= {0, 1} and (not listed or len(listed.classes) == 1)
    if not (plain <= {0, 255} or is_one) or not plain - {0}:
        return None
    if listed and (len(listed.classes) > 2 or 255 in listed.values or listed.encoding):
        return None
    classes = [*(listed.classes if listed else map(SourceClass, BINARY))]
    if len(classes) == 1:
        classes.insert(0, SourceClass(BINARY[0]))
    unused = MaskEncoding((), VOID)
    return MaskMeaning(classes, unused, unused, is_binary=True)


def _without_noise(number: int) -> int:
    """Black or white, for what JPEG makes of them."""
    if number < NEAR:
        return 0
    return 255 if number > 255 - NEAR else number


def _of_list(contents: Sequence[MaskContent], listed: ClassList, ignored: Sequence[int]) -> MaskMeaning:
    if listed.encoding:
        return MaskMeaning(listed.classes, listed.encoding, _for_colors(listed.encoding))
    colors = {each.color: index for index, each in enumerate(listed.classes) if each.color}
    used = {color for content in contents for color in (content.colors or content.palette.values())}
    if colors and used and used <= colors.keys():
        encoding = MaskEncoding.from_colors(colors, (), VOID)
        return MaskMeaning(listed.classes, encoding, encoding)
    always = () if 255 in listed.values else (255,)
    of_value = {value: index for index, value in enumerate(listed.values) if value not in ignored}
    encoding = MaskEncoding.from_values(of_value, (*always, *ignored), VOID)
    of_color = MaskEncoding.from_colors(colors, (), VOID) if _has_colors(contents) else _for_colors(encoding)
    return MaskMeaning(listed.classes, encoding, of_color)


def _check_listed(contents: Sequence[MaskContent], meaning: MaskMeaning) -> None:
    """Raise SourceError if masks store values that are neither a class nor ignored."""
    unknown: dict[str, str] = {}
    for content in contents:
        packed = {red << 16 | green << 8 | blue: str((red, green, blue)) for red, green, blue in content.colors}
        stored = packed or {number: str(number) for number in content.numbers}
        encoding = meaning.colors if packed else meaning.numbers
        if encoding.colors and not packed:
            continue  # an indexed image that is read as colours; the decoder checks it
        known = {value for value, _ in encoding.id_of_value}
        for value, text in sorted(stored.items()):
            if value not in known:
                unknown.setdefault(text, content.name)
    if unknown:
        named = ", ".join(f"{text} ({name})" for text, name in list(unknown.items())[:MAX_NAMED])
        raise SourceError(
            f"masks store values that the list of classes lacks: {named}; complete the list, or ignore them with "
            "--ignore-values. If no mask should have them, a program has converted colours or palette indices to grey: "
            "export indexed PNG"
        )


def _of_numbers(
    contents: Sequence[MaskContent], numbers: frozenset[int], ignored: Sequence[int], losses: Losses
) -> MaskMeaning:
    values = sorted(numbers - {255})
    _check_number(len(values), contents, "values")
    if 255 in numbers:
        losses.add("ignored value", IGNORED_255, "")
    if values and values != list(range(values[0], values[-1] + 1)):
        losses.add("sparse values", NOT_CONSECUTIVE, ", ".join(map(str, values[:MAX_NAMED])), remedy="check them")
    palette: dict[int, Color] = {}
    for content in contents:
        palette |= {value: color for value, color in content.palette.items() if value not in palette}
    classes = [SourceClass(f"class {value}", palette.get(value)) for value in values]
    of_value = {value: index for index, value in enumerate(values)}
    encoding = MaskEncoding.from_values(of_value, (255, *ignored), VOID)
    return MaskMeaning(classes, encoding, _for_colors(encoding))


def _of_colors(contents: Sequence[MaskContent]) -> MaskMeaning:
    colors = sorted({color for content in contents for color in (content.colors or content.palette.values())})
    _check_number(len(colors), contents, "colours")
    if any(not content.colors and not content.palette for content in contents):
        names = [content.name for content in contents if not content.colors and not content.palette]
        raise SourceError(f"{names[0]}: stores numbers, and other masks store colours; export all in one form")
    named = {(0, 0, 0): BINARY[0]}
    classes = [SourceClass(named.get(color, "#{:02x}{:02x}{:02x}".format(*color)), color) for color in colors]
    encoding = MaskEncoding.from_colors({color: index for index, color in enumerate(colors)}, (), VOID)
    return MaskMeaning(classes, encoding, encoding)


def _check_number(found: int, contents: Sequence[MaskContent], what: str) -> None:
    if found > MAX_CLASSES:
        largest = max(contents, key=lambda content: len(content.colors or content.numbers))
        raise SourceError(
            f"the masks store {found} different {what}, as photographs do ({largest.name}); give the folder of the "
            "masks with --masks, or the list of classes with --classes"
        )


def _has_colors(contents: Sequence[MaskContent]) -> bool:
    return any(not content.is_grey for content in contents)


def _for_colors(encoding: MaskEncoding) -> MaskEncoding:
    """The same for images whose three channels are equal."""
    if encoding.colors:
        return encoding
    pairs = ((value << 16 | value << 8 | value, index) for value, index in encoding.id_of_value if value < 256)
    return replace(encoding, id_of_value=tuple(pairs), colors=True, reduces_zero=False)
