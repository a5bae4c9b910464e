"""Run the graph with onnxruntime in Triton's Python backend, for Triton builds without the onnxruntime backend.

Needs Python 3.10 or newer, the container's numpy, and onnxruntime or onnxruntime-gpu: `pip install onnxruntime` there.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


class TritonPythonModel:
    """Triton's interface of a Python model: image uint8 [N, H, W, 3] to the graph's outputs.

    These are mask and confidence [N, H, W] and, in bundles with embeddings, embedding float16 [N, D].
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Load model.onnx from this file's folder."""
        import triton_python_backend_utils  # type: ignore[import-not-found, unused-ignore] # noqa: PLC0415

        self.triton: Any = triton_python_backend_utils
        providers: list[Any] = ["CPUExecutionProvider"]
        if args["model_instance_kind"] == "GPU":
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": args["model_instance_device_id"]}))
        graph = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(graph, providers=providers)
        configured = [entry["name"] for entry in json.loads(args["model_config"])["output"]]
        self.outputs = [value.name for value in self.session.get_outputs() if value.name in configured]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run the requests, whose images have equal sizes, as one batch."""
        images = [self.triton.get_input_tensor_by_name(request, "image").as_numpy() for request in requests]
        outputs = self.session.run(self.outputs, {"image": np.concatenate(images)})
        ends = np.cumsum([len(image_NHW3) for image_NHW3 in images])[:-1]
        parts = zip(*(np.split(output, ends) for output in outputs), strict=True)
        return [self._response(part) for part in parts]

    def _response(self, outputs: tuple[Any, ...]) -> Any:
        tensors = [self.triton.Tensor(name, output) for name, output in zip(self.outputs, outputs, strict=True)]
        return self.triton.InferenceResponse(output_tensors=tensors)
