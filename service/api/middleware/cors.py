"""Pages of other sites: none may ask from a browser, but for those that the settings name."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from service.settings import Settings

# What a page may read of an answer, beside what browsers show it anyway.
READABLE = [
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
    """Let the pages of `MASKLOOP_CORS_ORIGINS` ask. They bring a key; cookies, of which there are none, stay out."""
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["*"],
            expose_headers=READABLE,
        )
