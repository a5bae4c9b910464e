"""Describe a bundle for people: MODEL_CARD.md, the table of graphs, and the class colours on a terminal."""

from pathlib import Path
from typing import Any

from exporter.manifest import Manifest

COLOR_BLOCK = "\x1b[48;2;{};{};{}m      \x1b[0m"
"""Six spaces on a background of 24-bit colour (ISO 8613-6)."""


def model_card(manifest: Manifest, about: str = "") -> str:
    """The text of MODEL_CARD.md; `about` is the user's Markdown, placed after the summary."""
    sections = [
        f"# {manifest.name}\n\n{_summary(manifest)}",
        about.strip(),
        f"## Accuracy\n\n{_quality(manifest)}",
        f"## Training\n\n{_training(manifest)}",
        f"## Use\n\n{_use(manifest)}",
        f"## Limits\n\n{_limits(manifest)}",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _summary(manifest: Manifest) -> str:
    names = ", ".join(entry.name for entry in manifest.classes)
    return f"""\
Semantic segmentation: assigns every pixel of a photograph one of {len(manifest.classes)} classes ({names}).

| | |
|---|---|
| Version | `{manifest.version}` |
| Created | {manifest.created_at} |
| Encoder | `{_recipe(manifest, "model", "encoder")}`, DPT head |{_value_range(manifest)}{_embedding(manifest)}

{artifacts_table(manifest)}"""


def _value_range(manifest: Manifest) -> str:
    if manifest.value_range is None:
        return ""
    black, white = manifest.value_range
    return f"\n| Value range | {black:g} is black, {white:g} is white in images of floats, 32, 16 or 12 bits |"


def _embedding(manifest: Manifest) -> str:
    if manifest.embedding is None:
        return ""
    return (
        f"\n| Embedding | {manifest.embedding.dimensions} numbers for each image, of length 1; cosines compare images "
        "(of one graph) |"
    )


def artifacts_table(manifest: Manifest) -> str:
    """Size, speed and accuracy of each graph as a Markdown table."""
    rows = []
    for artifact in manifest.artifacts:
        measured = artifact.validation
        validation = ["", "", ""]
        if measured:
            over = f" over {measured.classes} of {len(manifest.classes)} classes" if measured.classes else ""
            validation = [f"{100 * measured.mask:.3f} %", f"{measured.miou:.4f}{over}", f"{measured.miou_lost:+.4f}"]
        rows.append(
            [
                f"`{artifact.file}`",
                f"{artifact.bytes / 1e6:.1f}",
                f"{artifact.speed.ms_per_image:.0f}",
                f"{100 * artifact.agreement.mask:.3f} %",
                *validation,
            ]
        )
    head = ["graph", "MB", "ms per image", "equal to PyTorch: probe", "validation", "mIoU", "mIoU lost"]
    speed = manifest.artifacts[0].speed
    return (
        f"{markdown_table(head, rows)}\n\n"
        f"Speed: images of {speed.size[1]}x{speed.size[0]} pixels ({speed.provider}, {speed.threads} threads). "
        "Probe: the fraction of equal pixels in the worst image."
    )


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """Format a Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def _quality(manifest: Manifest) -> str:
    metrics = manifest.metrics
    if "reported" in metrics:
        return f"Reported: {metrics['reported']}."
    if "miou" not in metrics:
        return "Not measured. `maskloop evaluate CHECKPOINT --data DATASET` measures it."
    per_class: dict[str, float | None] = metrics.get("per_class", {})
    rows = []
    for entry in manifest.classes:
        iou = per_class.get(entry.name)
        color = "`#{:02x}{:02x}{:02x}`".format(*entry.color)
        rows.append([str(entry.id), entry.name, color, "absent" if iou is None else f"{iou:.3f}"])
    return (
        f"Mean intersection over union **{metrics['miou']:.3f}**{miou_classes(metrics)} on "
        f"{metrics.get('images', '?')} labelled images (split `{metrics.get('split', '?')}`) that were not used for "
        "training. IoU per class (1 is perfect):\n\n" + markdown_table(["id", "class", "colour", "IoU"], rows)
    )


def miou_classes(metrics: dict[str, Any]) -> str:
    """The classes in a mIoU: " over 3 of 11 classes (0.675 over those in the labels)", or "" if unknown."""
    values = metrics.get("per_class", {}).values()
    if not values:
        return ""
    counted = sum(iou is not None for iou in values)
    in_labels = metrics.get("miou_truth_classes", metrics["miou"])
    others = f" ({in_labels:.3f} over those in the labels)" if in_labels != metrics["miou"] else ""
    return f" over {counted} of {len(values)} classes{others}"


def _training(manifest: Manifest) -> str:
    provenance = manifest.provenance
    data = provenance.recipe.get("data", {})
    root = Path(data.get("root", "?")).name  # the name only: the path is private
    parent = f"It started from version `{provenance.parent}`. " if provenance.parent else ""
    return (
        f"Method `{provenance.recipe.get('method', '?')}`, {_recipe(manifest, 'train', 'steps')} steps, data set "
        f"`{root}` (labelled: `{data.get('labelled', '?')}`, unlabelled: `{data.get('unlabelled', '?')}`). "
        f"{parent}The complete recipe is in manifest.json under `provenance.recipe`. Fingerprint of the data: "
        f"`{provenance.data_fingerprint}`. Code: `{provenance.code_version}`."
    )


def _use(manifest: Manifest) -> str:
    return f"""\
```sh
maskloop serve --model BUNDLE
curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' localhost:8000/v1/segment -o mask.png
```

or without Maskloop:

```python
import numpy, onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession("{manifest.artifacts[0].file}")
image = numpy.asarray(Image.open("photo.jpg").convert("RGB"))[None]   # uint8 [1, H, W, 3]
mask, confidence = session.run(["mask", "confidence"], {{"image": image}})
```

`mask[0]` contains the class id of each pixel and `confidence[0]` its confidence (255 = 1.0). The graph contains
normalisation and resizing."""


def _limits(manifest: Manifest) -> str:
    size = "The network processes the image at its own size: time and memory grow with the number of pixels."
    if side := manifest.inference.long_side:
        size = f"The graph resizes the image's long side to {side} pixels; details thinner than one pixel are lost."
    return f"""\
- The model assigns one of the {len(manifest.classes)} classes above to every pixel, whatever it shows.
- The figures above apply to images like those of the data set. Test the model on your own images first.
- The confidence is the network's softmax and is not calibrated.
- {size}"""


def _recipe(manifest: Manifest, table: str, key: str) -> Any:
    return manifest.provenance.recipe.get(table, {}).get(key, "?")


def palette(manifest: Manifest) -> str:
    """One line per class for a terminal: colour, id and name."""
    return "".join(f"{COLOR_BLOCK.format(*entry.color)} {entry.id:>3}  {entry.name}\n" for entry in manifest.classes)
