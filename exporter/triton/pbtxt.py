"""Write nested mappings in protocol buffers' text format, as Triton reads it in config.pbtxt.

protobuf's own writer needs Triton's message schema, which none of the exporter's libraries contains. This writer needs
no schema; a test parses its output with protobuf and Triton's schema.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

INDENT = "  "


@dataclass(frozen=True, slots=True)
class EnumValue:
    """A value of an enumeration, which the format writes without quotes: `KIND_CPU`."""

    name: str


Scalar = bool | int | str | EnumValue
Message = Mapping[str, "Value"]
Value = Scalar | Message | Sequence[int] | Sequence[Message]
"""A sequence of integers becomes `[1, 2]`; a sequence of messages repeats the field."""


def to_text(message: Message) -> str:
    """Format a message; every line ends with a line feed."""
    return "".join(f"{line}\n" for line in _lines(message))


def map_entries(pairs: Mapping[str, str | Message]) -> list[Message]:
    """Return a field of type map, which the format writes as repeated messages of `key` and `value`."""
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
    if isinstance(value, EnumValue):
        return value.name
    if isinstance(value, bool):
        return "true" if value else "false"
    return _quoted(value) if isinstance(value, str) else str(value)


def _quoted(text: str) -> str:
    """Quote a string, with reserved and control characters as octal escapes."""
    return '"' + "".join(f"\\{ord(char):03o}" if char in '"\\' or ord(char) < 32 else char for char in text) + '"'
