"""Model for Triton's Python backend: JPEG in, PNG mask out. PyTriton's wheel has no onnxruntime backend."""

from typing import Any

import numpy as np

from tests.benchmarks.serving.peers.segmentation import decode, encode, infer, open_session, read_palette


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:  # noqa: ARG002 (Triton's signature)
        # This module exists only inside Triton.
        import triton_python_backend_utils  # type: ignore[import-not-found, unused-ignore]

        self.triton: Any = triton_python_backend_utils
        self.session, self.palette = open_session(1), read_palette()

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.respond(request) for request in requests]

    def respond(self, request: Any) -> Any:
        data = self.triton.get_input_tensor_by_name(request, "image_bytes").as_numpy().item()
        png = encode(infer(self.session, decode(data)), self.palette)
        tensor = self.triton.Tensor("mask_png", np.array([[png]], dtype=np.object_))
        return self.triton.InferenceResponse(output_tensors=[tensor])
