"""Run by test_own_environment.py: both clients of locust post PHOTO; a wrong answer is a failure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from locust import FastHttpUser, HttpUser

PHOTO = Path(os.environ["PHOTO"]).read_bytes()


def segment(user: Any) -> None:
    """POST the photo."""
    with user.client.post("/v1/segment", data=PHOTO, catch_response=True) as response:
        if response.headers["Content-Type"] != "image/png":
            response.failure(response.text)


class Requests(HttpUser):  # type: ignore[misc]  # installed by `make clients` only
    tasks = (segment,)


class Gevent(FastHttpUser):  # type: ignore[misc]
    tasks = (segment,)
