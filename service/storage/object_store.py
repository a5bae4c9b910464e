"""Object stores that fsspec can reach, such as S3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from service.errors import StorageFailed

RETRY_AFTER_S = 5
# The defaults of boto3 and s3fs wait 7 minutes for a server that hangs. A call within a database transaction must
# end before the database ends the transaction, so that all other requests do not wait for one.
S3_CLIENT = {"connect_timeout": 5, "read_timeout": 10, "retries": {"mode": "standard", "total_max_attempts": 2}}
S3_TRIES = 2


def open_object_store(url: str) -> tuple[Any, str]:
    """Return fsspec's file system and the path of a URL.

    Raises StorageFailed if the URL is invalid, or the library of its protocol not installed.
    """
    try:
        # Imported here: it takes a tenth of a second, and most services store files.
        from fsspec.core import url_to_fs  # noqa: PLC0415

        # Nothing is cached: other processes change the store, and the environment may name another server.
        options = {"config_kwargs": S3_CLIENT} if url.startswith("s3://") else {}
        files, path = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True, **options)
        if options:
            files.retries = S3_TRIES
    except (ImportError, ValueError) as error:
        raise StorageFailed(
            f"MASKLOOP_STORAGE_URL cannot be opened ({error}): write s3://BUCKET/FOLDER, after "
            "`uv pip install '.[s3]'`, or leave it empty for the data folder."
        ) from None
    return files, path


@contextmanager
def reported() -> Iterator[None]:
    """Raise StorageFailed for every error but FileNotFoundError: each client library has errors of its own."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        raise StorageFailed(
            f"The object store does not answer ({type(error).__name__}: {error}): check MASKLOOP_STORAGE_URL, the "
            "credentials and the server.",
            retry_after_s=RETRY_AFTER_S,
        ) from error


@contextmanager
def reported_writes() -> Iterator[None]:
    """As `reported`. A write that finds nothing raises StorageFailed as well: its bucket is missing."""
    try:
        with reported():
            yield
    except FileNotFoundError as error:
        raise StorageFailed(
            f"The object store has no place to write to ({error}): create the bucket of MASKLOOP_STORAGE_URL.",
            retry_after_s=RETRY_AFTER_S,
        ) from error
