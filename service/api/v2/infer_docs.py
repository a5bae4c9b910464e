"""OpenAPI schema of an inference request; `service/open_inference/infer_request.py` parses and validates it."""

from __future__ import annotations

from typing import Any

from service.api.dependencies import BINARY

PARAMETERS = {"type": "object", "description": "The protocol's, and a client's own, which are passed over"}
INPUT = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"enum": ["image", "image_bytes"], "description": "By the model: pixels, or the files of pictures"},
        "datatype": {"enum": ["UINT8", "BYTES"], "description": "Of `image`, of `image_bytes`"},
        "shape": {
            "type": "array",
            "items": {"type": "integer", "minimum": 1},
            "description": "Of `image`: N, height, width, 3; of `image_bytes`: N",
        },
        "data": {
            "type": "array",
            "description": "Numbers, nested or flat, or base64; left out where `binary_data_size` in the parameters "
            "says how many bytes come behind the JSON",
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
            "description": "The first two of models that take pixels, the others of those that take files",
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
        "outputs": {"type": "array", "items": OUTPUT, "description": "Those that are wanted; left out: all"},
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
            "description": "Bytes of the JSON, where tensors come behind it; 0: the body is the file of a picture",
        },
        {
            "name": "Content-Encoding",
            "in": "header",
            "schema": {"enum": ["identity", "gzip", "deflate"]},
            "description": "How the body is compressed",
        },
    ],
}
