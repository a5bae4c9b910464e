"""`python -m exporter check-tensorrt`. The parser is in the wheels `tensorrt-rtx` and `tensorrt`."""
