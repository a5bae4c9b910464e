"""CORS for the pages of the origins in `MASKLOOP_CORS_ORIGINS`."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from service.settings import Settings

# Response headers that these pages may read, besides those that browsers always expose.
EXPOSED_HEADERS = [
    "Inference-Header-Content-Length",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "Server-Timing",
    "WWW-Authenticate",
    "X-Confidence-Mean",
    "X-Image-Id",
    "X-Image-Orientation",
    "X-Mask-Scale",
    "X-Model-Precision",
    "X-Model-Version",
    "X-Request-Id",
]


def add_cors(app: FastAPI, settings: Settings) -> None:
    """Add CORS if any origin is allowed. Pages send a key; browsers send no cookies."""
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
        )
