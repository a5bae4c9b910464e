"""A bundle for NVIDIA TensorRT: whether its graph is fit, what makes it so, and the engine where one can be built.

`python -m exporter check-tensorrt` runs all of it. TensorRT is on few machines, so what it takes is written down here
(operators, restrictions) and looked up; a test asks NVIDIA's own parser the same questions.
"""
