"""Maskloop's service: masks over HTTP, the image pool, retraining runs and model versions."""
