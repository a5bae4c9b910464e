"""Settings of storage and HTTP server, the first part of `service.settings`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings


class ServerSettings(BaseSettings):
    """Where data is stored, and how the server listens."""

    # Storage
    data_dir: Path = Path("maskloop-data")
    """Folder for the database, images, models and runs. The first start creates it."""
    database_url: str = ""
    """SQLAlchemy URL of the database, such as `postgresql+psycopg://USER:PASSWORD@HOST/NAME`, which needs the extra
    `postgresql`. Empty: an SQLite file in `data_dir`."""
    storage_url: str = ""
    """Where images, masks and copies of models are stored: an fsspec URL such as `s3://BUCKET/FOLDER`, which needs the
    extra `s3` and takes its endpoint and credentials from `AWS_*` variables. Empty: files in `data_dir`."""
    broker_url: str = ""
    """URL of the Redis or Valkey server that queues training runs. Empty: `up` starts a Valkey server and stops it when
    it exits."""

    # HTTP server
    host: str = "127.0.0.1"
    """Address to listen on. 127.0.0.1 accepts connections from this machine only, 0.0.0.0 from every network."""
    port: int = Field(default=8000, ge=0, le=65535)
    """TCP port to listen on. 0: any free port."""
    max_image_bytes: int = Field(default=20 * 2**20, gt=0)
    """Maximum size of an encoded image or mask, in bytes. Checked while the body arrives."""
    max_image_pixels: int = Field(default=24_000_000, gt=0, le=178_000_000)
    """Maximum width times height of an image, in pixels. Checked before the image is decoded."""
    max_bundle_bytes: int = Field(default=2 * 2**30, gt=0)
    """Maximum size of an uploaded model, in bytes. Applies to the zip file and to its unpacked content."""
    max_concurrent_requests: int = Field(default=32, gt=0)
    """Maximum number of segmentations that run or wait; further requests get 503 with Retry-After. An image of a batch
    request starts only while fewer than half of them are in use. Uploads to the pool have a separate limit of the same
    size."""
    max_wait_s: float = Field(default=3.0, gt=0)
    """Maximum queueing time of a segmentation, in seconds. A request gets 503 if its estimated queueing time is longer,
    or if it has waited this long. The first two requests per core are admitted regardless and have no limit."""
    max_batch_images: int = Field(default=100, gt=0)
    """Maximum number of images in one batch request. Those above 256 KiB wait on disk in
    `data_dir`."""
    max_batch_bytes: int = Field(default=200 * 2**20, gt=0)
    """Maximum size of a batch request, in bytes."""
    max_concurrent_batches: int = Field(default=4, gt=0)
    """Maximum number of batch requests (`/v1/segment/batch`, `/v1/images/batch`) at a time; further ones get 503 with
    Retry-After."""
    max_import_bytes: int = Field(default=2 * 2**30, gt=0)
    """Maximum size of an archive for `/v1/imports`, in bytes. Applies to the zip file and to its unpacked content."""
    max_concurrent_conversions: int = Field(default=2, gt=0)
    """Maximum number of imports and exports of labels (`/v1/imports`, `/v1/labels/export`) at a time; further ones get
    503 with Retry-After. Each is a process of its own, and has its files in `data_dir` until it ends."""
    receive_timeout_s: float = Field(default=30.0, gt=0)
    """Time in which the body of an image or mask must arrive, in seconds; otherwise the request gets 408."""
    send_timeout_s: float = Field(default=30.0, gt=0)
    """Time in which a client must accept 64 KiB of a response, in seconds. Slower clients are disconnected and
    their remaining work is cancelled."""
    drain_s: float = Field(default=20.0, gt=0)
    """Time that running requests have to finish after SIGTERM, in seconds; then their connections are closed. A process
    manager must wait longer than this before it sends SIGKILL."""

    @field_validator("data_dir")
    @classmethod
    def _check_data_dir(cls, folder: Path) -> Path:
        try:
            str(folder.absolute()).encode()
        except UnicodeEncodeError:
            raise ValueError(f"the path {str(folder.absolute())!r} is not UTF-8; choose another folder") from None
        return folder
