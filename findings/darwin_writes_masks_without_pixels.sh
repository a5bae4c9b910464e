#!/usr/bin/env bash
# One would guess: darwin-py writes as Darwin JSON what it has read from Darwin JSON.
# True: masks and raster layers, which its parser reads, are written as a name and an id without a pixel, and nothing says so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet darwin-py==3.6.3
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import json
from importlib.metadata import version
from pathlib import Path

from darwin.exporter.formats.darwin import build_image_annotation
from darwin.utils import parse_darwin_json

corners = [{"x": x, "y": y} for x, y in ((1, 1), (5, 1), (5, 4))]
layer = {"dense_rle": [0, 600, 1, 600], "mask_annotation_ids_mapping": {"m": 1}, "total_pixels": 1200}
annotations = [
    {"id": "p", "name": "lane", "polygon": {"paths": [corners]}, "bounding_box": {"x": 1, "y": 1, "w": 4, "h": 3}},
    {"id": "m", "name": "road", "mask": {}},
    {"id": "r", "name": "__raster_layer__", "raster_layer": layer},
]
slot = {"type": "image", "slot_name": "0", "width": 40, "height": 30, "source_files": [{"file_name": "a.png", "url": ""}]}
item = {"name": "a.png", "path": "/", "slots": [slot]}
schema = "https://darwin-public.s3.eu-west-1.amazonaws.com/darwin_json/2.0/schema.json"
for each in annotations:
    each["slot_names"] = ["0"]
path = Path("a.json")
path.write_text(json.dumps({"version": "2.0", "schema_ref": schema, "item": item, "annotations": annotations}))

parsed = parse_darwin_json(path, 0)
read = {each.annotation_class.annotation_type: bool(each.data) for each in parsed.annotations}
written = {each["name"]: sorted(each) for each in build_image_annotation(parsed, "team")["annotations"]}
print("darwin-py", version("darwin-py"))
print("  read:", ", ".join(read), "- the layer has data:", read["raster_layer"])
for name, keys in written.items():
    print(f"  written: {name} with {', '.join(keys)}")
only_names = all(written[name] == ["id", "name"] for name in ("road", "__raster_layer__"))
if not read["raster_layer"] or "polygon" not in written["lane"] or not only_names:
    raise SystemExit("the behaviour has changed")
PYTHON
