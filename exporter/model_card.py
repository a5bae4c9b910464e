"""MODEL_CARD.md: what a person wants to know before using a model."""

from pathlib import Path
from typing import Any

from exporter.manifest import Manifest


def model_card(manifest: Manifest, about: str = "") -> str:
    """The card's Markdown. `about` is the maker's own paragraph and stands right after the first."""
    sections = [
        f"# {manifest.name}\n\n{_summary(manifest)}",
        about.strip(),
        f"## How good it is\n\n{_quality(manifest)}",
        f"## What it was trained on\n\n{_training(manifest)}",
        f"## How to use it\n\n{_use(manifest)}",
        f"## Limits\n\n{_limits(manifest)}",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _summary(manifest: Manifest) -> str:
    names = ", ".join(entry.name for entry in manifest.classes)
    rows = {
        "Version": f"`{manifest.version}`",
        "Made": manifest.created_at,
        "Encoder": f"`{_recipe(manifest, 'model', 'encoder')}`, DPT head",
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    head = f"Semantic segmentation: gives every pixel of a photograph one of {len(manifest.classes)} classes ({names})."
    return f"{head}\n\n| | |\n|---|---|\n{table}\n\n{artifacts_table(manifest)}"


def artifacts_table(manifest: Manifest) -> str:
    """The graphs side by side, in Markdown."""
    head = ["graph", "MB", "ms an image", "equal to PyTorch: probe", "validation", "mIoU", "lost"]
    rows = []
    for artifact in manifest.artifacts:
        seen = artifact.validation
        rows.append(
            [
                f"`{artifact.file}`",
                f"{artifact.bytes / 1e6:.1f}",
                f"{artifact.speed.ms_per_image:.0f}",
                f"{100 * artifact.agreement.mask:.3f} %",
                *([f"{100 * seen.mask:.3f} %", f"{seen.miou:.4f}", f"{seen.miou_lost:+.4f}"] if seen else [""] * 3),
            ]
        )
    speed = manifest.artifacts[0].speed
    note = (
        f"Images of {speed.size[1]}x{speed.size[0]} pixels ({speed.provider}, {speed.threads} threads). Of the probe, "
        "the image that agrees least."
    )
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]) + f"\n\n{note}"


def _quality(manifest: Manifest) -> str:
    metrics = manifest.metrics
    if "reported" in metrics:
        return f"Reported: {metrics['reported']}."
    if "miou" not in metrics:
        return "The run measured nothing. `python -m trainer evaluate CHECKPOINT --data DATASET` does."
    per_class: dict[str, float | None] = metrics.get("per_class", {})
    rows = []
    for entry in manifest.classes:
        iou = per_class.get(entry.name)
        color = "#{:02x}{:02x}{:02x}".format(*entry.color)
        rows.append(f"| {entry.id} | {entry.name} | `{color}` | {'absent' if iou is None else f'{iou:.3f}'} |")
    head = (
        f"Mean intersection over union **{metrics['miou']:.3f}** on {metrics.get('images', '?')} labelled images "
        f"(split `{metrics.get('split', '?')}`) that training did not see. Class by class, 1 is perfect:"
    )
    return f"{head}\n\n| id | class | colour | IoU |\n|---|---|---|---|\n" + "\n".join(rows)


def _training(manifest: Manifest) -> str:
    provenance = manifest.provenance
    data = manifest.provenance.recipe.get("data", {})
    root = Path(data.get("root", "?")).name  # the folder's name: where it lay is nobody's business
    parent = f"It started from version `{provenance.parent}`. " if provenance.parent else ""
    return (
        f"Method `{provenance.recipe.get('method', '?')}`, {_recipe(manifest, 'train', 'steps')} steps, data set "
        f"`{root}` (labelled: `{data.get('labelled', '?')}`, unlabelled: `{data.get('unlabelled', '?')}`). "
        f"{parent}The whole recipe is in manifest.json under "
        f"`provenance.recipe`. Fingerprint of the data: `{provenance.data_fingerprint}`. "
        f"Code: `{provenance.code_version}`."
    )


def _use(manifest: Manifest) -> str:
    artifact = manifest.artifacts[0]
    return f"""\
```sh
python -m service serve --model BUNDLE
curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' localhost:8000/v1/segment -o mask.png
```

or without any of Maskloop:

```python
import numpy, onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession("{artifact.file}")
image = numpy.asarray(Image.open("photo.jpg").convert("RGB"))[None]   # uint8 [1, H, W, 3]
mask, confidence = session.run(["mask", "confidence"], {{"image": image}})
```

`mask[0]` holds a class id a pixel and `confidence[0]` how sure it is (255 = 1.0). Normalising and resizing happen
inside the graph."""


def _limits(manifest: Manifest) -> str:
    long_side = manifest.inference.long_side
    size = (
        f"The network sees the image with its long side at {long_side} pixels; what is thinner than one is lost."
        if long_side
        else "The network sees the image at its own size: time and memory grow with its pixels."
    )
    return (
        f"- It knows the {len(manifest.classes)} classes above and nothing else, and names one of them always.\n"
        "- The numbers above hold for images like those it was measured on. Try it on your own before you rely on it.\n"
        "- Its confidence is the network's own and not calibrated.\n"
        f"- {size}"
    )


def _recipe(manifest: Manifest, table: str, key: str) -> Any:
    return manifest.provenance.recipe.get(table, {}).get(key, "?")
