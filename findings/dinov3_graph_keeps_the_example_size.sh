#!/usr/bin/env bash
# One would guess: a timm DINOv3 exported with symbolic height and width gives the same features as PyTorch at every size, or the export fails.
# True: the export succeeds without a warning and the graph takes every size, but its rotary embedding divides by the example's sides.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet uv==0.13.9
"$work/venv/bin/uv" pip install --quiet --python "$work/venv/bin/python" torch==2.13.0 torchvision==0.28.0 timm==1.0.31 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import warnings

import onnxruntime
import timm
import torch

EXAMPLE, OTHERS = (64, 96), ((96, 64), (128, 192), (160, 320))


def network(name):
    """The first two blocks of a network with random weights."""
    torch.manual_seed(0)
    model = timm.create_model(name, depth=2, num_classes=0, global_pool="avg", dynamic_img_size=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def sizes():
    return {axis + 2: 16 * torch.export.Dim(name, min=2, max=64) for axis, name in enumerate(("rows", "columns"))}


def graph(model):
    """An onnxruntime session of the model, and the number of warnings that speak of sizes or constants."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        example = (torch.zeros(1, 3, *EXAMPLE),)
        torch.onnx.export(
            model, example, "model.onnx", dynamo=True, dynamic_shapes=(sizes(),), input_names=["image"], verbose=False
        )
    about = [w for w in caught if any(word in str(w.message).lower() for word in ("specializ", "constant", "guard"))]
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    return session, len(about)


def difference(model, session, size):
    """Largest difference of a feature, relative to the largest feature."""
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(image).numpy()
    found = session.run(None, {"image": image.numpy()})[0]
    return float(abs(expected - found).max() / abs(expected).max())


print("torch", torch.__version__, "timm", timm.__version__, "onnxruntime", onnxruntime.__version__)
changed = False
for name, frozen in (("vit_small_patch16_224", False), ("vit_small_patch16_dinov3", True)):
    model = network(name)
    session, about = graph(model)
    at_example = difference(model, session, EXAMPLE)
    elsewhere = [difference(model, session, size) for size in OTHERS]
    print(f"{name}: input {session.get_inputs()[0].shape}, {about} warnings about constants or guards")
    print(f"  {EXAMPLE[0]}x{EXAMPLE[1]}, the example: {at_example:.1e}")
    for size, found in zip(OTHERS, elsewhere, strict=True):
        print(f"  {size[0]}x{size[1]}: {found:.1e}")
    changed |= at_example > 1e-4 or about > 0 or (min(elsewhere) > 1e-2) != frozen or (max(elsewhere) < 1e-4) == frozen

program = torch.export.export(network("vit_small_patch16_dinov3"), (torch.zeros(1, 3, *EXAMPLE),), dynamic_shapes=(sizes(),))
try:
    program.module()(torch.zeros(1, 3, *OTHERS[0]))
    refused = ""
except AssertionError as error:
    refused = str(error)
print("the same network by torch.export alone, at another size:", refused or "runs")
if changed or not refused:
    raise SystemExit("the behaviour has changed")
PYTHON
