"""A picture for people: images with their masks laid over them, and a legend."""

# H W pixels, K classes, 3 = RGB

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trainer.data.decode import ImageError, decode_values, read_image
from trainer.data.imports.output.class_plan import BACKGROUND
from trainer.data.imports.output.write_images import WrittenImage
from trainer.taxonomy import Taxonomy

IMAGES, COLUMNS = 12, 4
CELL_PX, GAP_PX, TEXT_PX = 320, 8, 14
OPACITY, BACKGROUND_OPACITY = 0.55, 0.3
MAX_CLASSES, MAX_LETTERS = 40, 28
TEXT, FRAME = (40, 40, 40), (160, 160, 160)


def write_overview(folder: Path, images: Sequence[WrittenImage], taxonomy: Taxonomy) -> Path | None:
    """Write FOLDER/overview.jpg from images of the data set; None if no image has a mask that can be shown."""
    cells = [cell for each in choose(images) if (cell := _cell(folder, each, taxonomy))]
    if not cells:
        return None
    rows = -(-len(cells) // COLUMNS)
    side, row_px = CELL_PX + GAP_PX, max(picture.height for _, picture in cells) + 2 * TEXT_PX
    legend = _legend(taxonomy, min(COLUMNS, len(cells)) * side + GAP_PX)
    page = Image.new("RGB", (legend.width, rows * row_px + GAP_PX + legend.height), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(TEXT_PX)
    for index, (name, picture) in enumerate(cells):
        x, y = GAP_PX + index % COLUMNS * side, GAP_PX + index // COLUMNS * row_px
        page.paste(picture, (x, y))
        draw.text((x, y + picture.height), _shortened(name), TEXT, font)
    page.paste(legend, (0, page.height - legend.height))
    path = folder / "overview.jpg"
    page.save(path, quality=88)
    return path


def choose(images: Sequence[WrittenImage], count: int = IMAGES) -> list[WrittenImage]:
    """Images with masks: those that show classes which the ones before do not, then evenly spaced ones."""
    labelled = [each for each in images if each.counts_K is not None]
    chosen: list[WrittenImage] = []
    shown: set[int] = set()
    for each in labelled:
        classes = set(np.flatnonzero(each.counts_K).tolist() if each.counts_K is not None else ())
        if len(chosen) < count and not classes <= shown:
            chosen.append(each)
            shown |= classes
    others = [each for each in labelled if all(each is not other for other in chosen)]
    missing = min(count - len(chosen), len(others))
    chosen += [others[round(index * (len(others) - 1) / max(missing - 1, 1))] for index in range(missing)]
    return sorted(chosen, key=lambda each: each.name)


def _cell(folder: Path, written: WrittenImage, taxonomy: Taxonomy) -> tuple[str, Image.Image] | None:
    try:
        image = Image.fromarray(read_image(folder / written.image))
        mask_HW = decode_values(folder / written.mask, Path(written.mask))
    except ImageError:
        return None  # check-data reports it
    ids = Image.fromarray(np.minimum(mask_HW, len(taxonomy)).astype(np.int32))
    scale = CELL_PX / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small_HW3 = np.asarray(image.resize(size, reducing_gap=2.0), dtype=np.float32)
    # Not interpolated: a value between two ids would be another class.
    small_HW = np.asarray(ids.resize(size, Image.Resampling.NEAREST))
    # Ignored pixels keep the image's colours; background is mostly large and black.
    colors_K3 = np.array([*taxonomy.colors, (0, 0, 0)], dtype=np.float32)
    opacity_K = np.array([BACKGROUND_OPACITY if name == BACKGROUND else OPACITY for name in taxonomy.names] + [0.0])
    opacity_HW1 = opacity_K[small_HW][..., None]
    blended_HW3 = small_HW3 * (1 - opacity_HW1) + colors_K3[small_HW] * opacity_HW1
    return written.name, Image.fromarray(blended_HW3.astype(np.uint8))


def _legend(taxonomy: Taxonomy, width: int) -> Image.Image:
    pairs = list(zip(taxonomy.names, taxonomy.colors, strict=True))[:MAX_CLASSES]
    entries = [(_shortened(name), color) for name, color in pairs]
    if len(taxonomy) > MAX_CLASSES:
        entries.append((f"and {len(taxonomy) - MAX_CLASSES} more", (255, 255, 255)))
    columns, line = max(1, width // (CELL_PX // 2 + CELL_PX // 4)), TEXT_PX * 3 // 2
    rows = -(-len(entries) // columns)
    legend = Image.new("RGB", (width, rows * line + GAP_PX), "white")
    draw, font = ImageDraw.Draw(legend), ImageFont.load_default(TEXT_PX)
    for index, (name, color) in enumerate(entries):
        x, y = GAP_PX + index // rows * (width // columns), index % rows * line
        draw.rectangle((x, y, x + TEXT_PX, y + TEXT_PX), color, FRAME)
        draw.text((x + line, y), name, TEXT, font)
    return legend


def _shortened(name: str) -> str:
    return name if len(name) <= MAX_LETTERS else f"...{name[3 - MAX_LETTERS :]}"
