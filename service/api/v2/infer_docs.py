"""OpenAPI schema of an inference request; `service/open_inference/infer_request.py` parses and validates it."""

from __future__ import annotations

from typing import Any

from service.api.dependencies import BINARY

PARAMETERS = {"type": "object", "description": "Parameters of the protocol; others are ignored"}
INPUT = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {
            "enum": ["image", "image_bytes"],
            "description": "`image` for models that take pixels, `image_bytes` for encoded images",
        },
        "datatype": {"enum": ["UINT8", "BYTES"], "description": "UINT8 for `image`, BYTES for `image_bytes`"},
        "shape": {
            "type": "array",
            "items": {"type": "integer", "minimum": 1},
            "description": "`image`: N, height, width, 3; `image_bytes`: N",
        },
        "data": {
            "type": "array",
            "description": "Numbers, nested or flat, or base64; omitted if the parameter `binary_data_size` gives the "
            "number of bytes that follow the JSON",
        },
        "parameters": PARAMETERS,
    },
}
OUTPUT = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {
            "enum": ["mask", "confidence", "mask_png", "mean_confidence"],
            "description": "`mask` and `confidence` for models that take pixels; the others for encoded images",
        },
        "parameters": PARAMETERS,
    },
}
REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "inputs": {"type": "array", "minItems": 1, "maxItems": 1, "items": INPUT},
        "outputs": {"type": "array", "items": OUTPUT, "description": "Requested outputs; default: all"},
        "parameters": PARAMETERS,
    },
}
PIXELS = [[[[255, 0, 0], [0, 255, 0]]]]
EXAMPLE = {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 1, 2, 3], "data": PIXELS}]}

DOCS: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": REQUEST, "example": EXAMPLE}, "application/octet-stream": BINARY},
    },
    "parameters": [
        {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "schema": {"type": "integer", "minimum": 0},
            "description": "Length of the JSON in bytes, if tensors follow it; 0: the body is an encoded image",
        },
        {
            "name": "Content-Encoding",
            "in": "header",
            "schema": {"enum": ["identity", "gzip", "deflate"]},
            "description": "Compression of the body",
        },
    ],
}
