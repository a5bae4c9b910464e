"""What Triton's Python backend runs. Each file is copied into a repository as model.py and stands on its own there."""
