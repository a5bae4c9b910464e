"""Programs for Triton's Python backend. Each file is copied into a model repository as model.py and runs alone."""
