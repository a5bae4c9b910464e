"""The classes' colours, drawn on a terminal."""

from exporter.manifest import Manifest

BLOCK = "\x1b[48;2;{};{};{}m      \x1b[0m"
"""Six columns on a background of 24-bit colour (ISO 8613-6)."""


def palette(manifest: Manifest) -> str:
    """A line a class: its colour, id and name."""
    return "".join(f"{BLOCK.format(*entry.color)} {entry.id:>3}  {entry.name}\n" for entry in manifest.classes)
