"""Run the graph with onnxruntime in Triton's Python backend, for Triton builds without the onnxruntime backend.

Needs Python 3.10 or newer, the container's numpy, and onnxruntime or onnxruntime-gpu: `pip install onnxruntime` there.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

OUTPUTS = ["mask", "confidence"]


class TritonPythonModel:
    """Triton's interface of a Python model: image uint8 [N, H, W, 3] to mask and confidence [N, H, W]."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load model.onnx from this file's folder."""
        import triton_python_backend_utils  # type: ignore[import-not-found, unused-ignore] # noqa: PLC0415

        self.triton: Any = triton_python_backend_utils
        providers: list[Any] = ["CPUExecutionProvider"]
        if args["model_instance_kind"] == "GPU":
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": args["model_instance_device_id"]}))
        graph = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(graph, providers=providers)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run the requests, whose images have equal sizes, as one batch."""
        images = [self.triton.get_input_tensor_by_name(request, "image").as_numpy() for request in requests]
        outputs = self.session.run(OUTPUTS, {"image": np.concatenate(images)})
        ends = np.cumsum([len(image_NHW3) for image_NHW3 in images])[:-1]
        parts = zip(*(np.split(output_NHW, ends) for output_NHW in outputs), strict=True)
        return [self._response(part) for part in parts]

    def _response(self, outputs: tuple[Any, ...]) -> Any:
        tensors = [self.triton.Tensor(name, output) for name, output in zip(OUTPUTS, outputs, strict=True)]
        return self.triton.InferenceResponse(output_tensors=tensors)
