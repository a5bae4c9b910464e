#!/usr/bin/env bash
# One would guess: a polygon of whole coordinates has the same pixels wherever it is drawn, so that it can be drawn on a small canvas and
# pasted, or on tiles. True: with Pillow's ImageDraw.polygon, moving it by whole pixels can add or remove a pixel of its edge.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pillow==13.0.0 numpy==2.3.5
"$work/venv/bin/python" - <<'PYTHON'
import numpy as np
import PIL
from PIL import Image, ImageDraw

SIDE, MOVES = 48, 30


def pixels(points, right, down):
    """Pixels of a polygon that is moved, seen from its place."""
    canvas = Image.new("1", (SIDE + MOVES, SIDE + MOVES))
    ImageDraw.Draw(canvas).polygon([(x + right, y + down) for x, y in points], fill=1, outline=1)
    return np.asarray(canvas)[down : down + SIDE, right : right + SIDE]


print("Pillow", PIL.__version__)
triangle = [(27, 39), (0, 1), (4, 32)]
first = pixels(triangle, 0, 0)
counts = {}
for right in range(MOVES):
    for down in range(MOVES):
        moved = pixels(triangle, right, down)
        counts.setdefault((int(moved.sum()), int((moved != first).sum())), (right, down))
for (total, different), move in counts.items():
    print(f"  {triangle} moved by {move}: {total} pixels, {different} other than at (0, 0)")
if len(counts) < 2:
    raise SystemExit("the behaviour has changed")
PYTHON
