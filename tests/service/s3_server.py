"""S3 servers on loopback, in this process."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from uuid import uuid4

import pytest


@contextmanager
def s3_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start a server; yield the URL of a folder in a new bucket. The `AWS_*` variables name the server."""
    server, variables = _start()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    yield _new_bucket()
    server.stop()


@cache
def shared_bucket() -> str:
    """Return the URL of a folder in the bucket of all tests, whose server and variables stay until the process ends."""
    server, variables = _start()
    atexit.register(server.stop)
    os.environ.update(variables)
    return _new_bucket()


def _start() -> tuple[Any, dict[str, str]]:
    # Imported here: it takes a second.
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    return server, {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def _new_bucket() -> str:
    import boto3

    bucket = f"test-{uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/maskloop"
