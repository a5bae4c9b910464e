#!/usr/bin/env bash
# One would guess: Label Studio's COCO export of a rotated rectangle is the box around it, as its YOLO_OBB export has the right corners.
# True: it turns the rectangle in percent of the picture, whose sides are not equal, so the box is another one unless the picture is square.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet label-studio-sdk==2.1.2 numpy==2.2.6 pillow==13.0.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import json
from importlib.metadata import version
from pathlib import Path

from label_studio_sdk.converter import Converter
from PIL import Image

CONFIG = """<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image"><Label value="car"/>
</RectangleLabels></View>"""
# In pixels of both pictures: upper left corner 20, 6; sides 10 and 6; a quarter turn clockwise about this corner.
LEFT, TOP, WIDE, HIGH = 20, 6, 10, 6
EXPECTED = [LEFT - HIGH, TOP, HIGH, WIDE]


def exported(form, width, height):
    """The file that Label Studio writes for one rectangle."""
    folder = Path(f"{form}-{width}x{height}")
    folder.mkdir()
    Image.new("RGB", (width, height)).save(folder / "picture.png")
    value = {"x": LEFT / width * 100, "y": TOP / height * 100, "rotation": 90, "rectanglelabels": ["car"]}
    value |= {"width": WIDE / width * 100, "height": HIGH / height * 100}
    result = {"from_name": "box", "to_name": "image", "type": "rectanglelabels", "value": value}
    result |= {"original_width": width, "original_height": height, "image_rotation": 0, "id": "r"}
    task = {"id": 1, "data": {"image": str(folder / "picture.png")}, "annotations": [{"id": 1, "result": [result]}]}
    (folder / "tasks.json").write_text(json.dumps([task]))
    converter = Converter(CONFIG, str(folder), download_resources=False)
    converter.convert(str(folder / "tasks.json"), str(folder / "out"), form, is_dir=False)
    return folder / "out"


def coco_box(width, height):
    content = json.loads((exported("COCO", width, height) / "result.json").read_text())
    return [round(number, 6) for number in content["annotations"][0]["bbox"]]


def corner_box(width, height):
    """The box around the four corners of YOLO_OBB."""
    (path,) = (exported("YOLO_OBB", width, height) / "labels").glob("*.txt")
    numbers = [float(part) for part in path.read_text().split()[1:9]]
    xs, ys = [x * width for x in numbers[::2]], [y * height for y in numbers[1::2]]
    return [round(number, 6) for number in (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))]


print("label-studio-sdk", version("label-studio-sdk"))
found = {}
for size in ((40, 40), (40, 30)):
    found[size] = coco_box(*size), corner_box(*size)
    print(f"  {size[0]}x{size[1]}: COCO {found[size][0]}, around the corners of YOLO_OBB {found[size][1]}")
print(f"  right: {EXPECTED}")
if found[40, 40] != (EXPECTED, EXPECTED) or found[40, 30][1] != EXPECTED or found[40, 30][0] == EXPECTED:
    raise SystemExit("the behaviour has changed")
PYTHON
