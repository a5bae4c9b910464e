#!/usr/bin/env bash
# One would guess: a GeoTIFF whose fourth band GDAL was told to be near infrared does not call that band transparency.
# True: with default options the tag ExtraSamples says unassociated alpha, whether the colour is declared before or after the pixels; only
# GDAL's own metadata names the band. With PHOTOMETRIC=RGB the band is unspecified. A reader that obeys the tag makes infrared transparent.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet rasterio==1.4.4 numpy==2.3.5 pillow==13.0.0
"$work/venv/bin/python" - "$work" <<'PYTHON'
import sys
import warnings

import numpy as np
import rasterio
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from rasterio.enums import ColorInterp

warnings.simplefilter("ignore")
EXTRA_SAMPLES, GDAL_METADATA, UNSPECIFIED, UNASSOCIATED_ALPHA = 338, 42112, (0,), (2,)


def written(colors, *, first, **options):
    """Tags of a GeoTIFF with four bands, whose colours are set before or after the pixels."""
    path = f"{sys.argv[1]}/bands.tif"
    with rasterio.open(path, "w", driver="GTiff", width=8, height=8, count=4, dtype="uint8", **options) as file:
        if first:
            file.colorinterp = colors
        file.write(np.zeros((4, 8, 8), np.uint8))
        if not first:
            file.colorinterp = colors
    # Not Image.open: with infrared declared before the pixels, the tags contradict each other.
    with open(path, "rb") as file:
        tags = ImageFileDirectory_v2(file.read(8))
        file.seek(tags.next)
        tags.load(file)
        return tags


colors = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.nir]
infrared = {when: written(colors, first=when == "before") for when in ("before", "after")}
explicit = written(colors, first=False, photometric="RGB")
print("GDAL", rasterio.__gdal_version__)
for when, tags in infrared.items():
    print(f"  infrared, declared {when} the pixels: ExtraSamples {tags[EXTRA_SAMPLES]}")
print(f"  infrared, with PHOTOMETRIC=RGB: ExtraSamples {explicit[EXTRA_SAMPLES]}")
named = all(">NIR<" in tags[GDAL_METADATA] for tags in infrared.values())
alpha = all(tags[EXTRA_SAMPLES] == UNASSOCIATED_ALPHA for tags in infrared.values())
if not named or not alpha or explicit[EXTRA_SAMPLES] != UNSPECIFIED:
    raise SystemExit("the behaviour has changed")
PYTHON
