"""Colours of classes as tools write them: "#00a0ff"."""

import re
from typing import Any

from trainer.data.imports.source.annotated import Color


def hex_color(value: Any) -> Color | None:
    """Red, green, blue of "#rrggbb"; None for anything else."""
    if not isinstance(value, str) or not re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        return None
    packed = int(value[1:], 16)
    return packed >> 16, packed >> 8 & 255, packed & 255
