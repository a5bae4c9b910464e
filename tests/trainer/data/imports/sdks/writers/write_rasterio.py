"""GDAL (rasterio): GeoTIFF masks with a palette, compressed and tiled."""

import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import rasterio
from rasterio.errors import NotGeoreferencedWarning

from tests.trainer.data.imports.sdks.case import Case, new_source, scene_masks
from tests.trainer.data.imports.sdks.scene import ANNOTATED, CLASSES, COLORS

TOOL = f"rasterio {version('rasterio')}, GDAL {rasterio.__gdal_version__}"


def main(root: Path) -> None:
    """Write the case below a folder."""
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    source = new_source(root, "geotiff-palette", ANNOTATED, "images")
    (source / "masks").mkdir()
    palette = {index: (*color, 255) for index, color in enumerate([(0, 0, 0), *COLORS])}
    for picture in ANNOTATED:
        height, width = picture.shape
        path = source / "masks" / f"{picture.stem}.tif"
        form = {"driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": "uint8"}
        layout = {"compress": "lzw", "predictor": 2, "tiled": True, "blockxsize": 16, "blockysize": 16}
        with rasterio.open(path, "w", **form, **layout) as file:
            file.write(picture.ids(), 1)
            file.write_colormap(1, palette)
    names = ("background", *CLASSES)
    case = Case(TOOL, "GeoTIFF with a palette", arguments=["--class-names", *names])
    case.write(source, scene_masks(ANNOTATED))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
