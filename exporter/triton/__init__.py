"""Write a bundle as a Triton model repository: `python -m exporter triton BUNDLE --out REPO`.

REPO/NAME/config.pbtxt labels.txt       the tensor model: image uint8 [N, H, W, 3] in, mask and confidence out
REPO/NAME/1/model.onnx manifest.json    one folder per version, numbered; Triton serves the highest number
REPO/NAME_encoded/config.pbtxt          encoded images in, PNG masks out; calls the tensor model
REPO/NAME_encoded/1/model.py            needs Pillow, which Triton's container lacks: pip install pillow
"""
