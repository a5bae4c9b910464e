"""Check a bundle's graphs with NVIDIA TensorRT's parser, rewrite them for TensorRT, and build an engine.

Command: `python -m exporter check-tensorrt`. The parser is in the wheels `tensorrt-rtx` and `tensorrt`.
"""
