"""Protocol buffers' text format, as Triton reads it in config.pbtxt: nested mappings to lines.

protobuf's own writer wants the message's schema, which is Triton's and comes with none of the exporter's libraries.
This one knows no schema; a test reads what it writes with protobuf and Triton's schema.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

INDENT = "  "


@dataclass(frozen=True, slots=True)
class Word:
    """The name of an enumeration's value, which stands without quotes: `KIND_CPU`."""

    name: str


Scalar = bool | int | str | Word
Message = Mapping[str, "Value"]
Value = Scalar | Message | Sequence[int] | Sequence[Message]
"""A sequence of integers becomes `[1, 2]`, a sequence of messages the field so many times."""


def to_text(message: Message) -> str:
    """The lines of a message, each ended by a line feed."""
    return "".join(f"{line}\n" for line in _lines(message))


def entries(pairs: Mapping[str, str | Message]) -> list[Message]:
    """A field of type map: the text format writes it as repeated pairs of key and value."""
    return [{"key": key, "value": value} for key, value in pairs.items()]


def _lines(message: Message) -> Iterator[str]:
    for name, value in message.items():
        if isinstance(value, Mapping):
            yield from _block(name, value)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield from _repeated(name, value)
        else:
            yield f"{name}: {_scalar(value)}"


def _block(name: str, message: Message) -> Iterator[str]:
    yield f"{name} {{"
    for line in _lines(message):
        yield INDENT + line
    yield "}"


def _repeated(name: str, values: Sequence[int] | Sequence[Message]) -> Iterator[str]:
    messages = [value for value in values if isinstance(value, Mapping)]
    for message in messages:
        yield from _block(name, message)
    if not messages:
        yield f"{name}: [{', '.join(map(str, values))}]"


def _scalar(value: Scalar) -> str:
    if isinstance(value, Word):
        return value.name
    if isinstance(value, bool):
        return "true" if value else "false"
    return _quoted(value) if isinstance(value, str) else str(value)


def _quoted(text: str) -> str:
    """In double quotes; what the format reserves, and control characters, as the octal of their bytes."""
    return '"' + "".join(f"\\{ord(char):03o}" if char in '"\\' or ord(char) < 32 else char for char in text) + '"'
