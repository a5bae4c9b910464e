"""What a person may set, and the only place that reads the environment.

Every field is `MASKLOOP_` plus its name in capitals: `MASKLOOP_PORT=9000`. Units stand in the names. Where a field may
be empty, the docstring under it says what empty means.
"""

from __future__ import annotations

import difflib
import os
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.cores import usable_cores

PACKAGE = Path(__file__).parent
PREFIX = "MASKLOOP_"


class Settings(BaseSettings):
    """The whole configuration of one process; frozen once built."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", protected_namespaces=())

    # Where things live.
    data_dir: Path = Path("maskloop-data")
    """Folder of the database, images, bundles and runs; made at the first start."""
    database_url: str = ""
    """SQLAlchemy URL. Empty: SQLite in `data_dir`."""
    broker_url: str = ""
    """Redis or Valkey URL. Empty: `service up` starts a Valkey of its own and ends it with itself."""

    # The HTTP side.
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    max_image_bytes: int = Field(default=20 * 2**20, gt=0)
    """Largest encoded image or mask, in bytes; checked while the body arrives."""
    max_image_pixels: int = Field(default=24_000_000, gt=0, le=178_000_000)
    """Largest image, width times height; checked on the header, before anything is decoded. Pillow takes no more."""
    max_bundle_bytes: int = Field(default=2 * 2**30, gt=0)
    """Largest uploaded model, in bytes, packed and unpacked alike."""
    max_concurrent_requests: int = Field(default=32, gt=0)
    """Segmentations admitted at one time, running and waiting; one more is told 503 with Retry-After. As many images
    and masks for the pool are admitted beside them."""
    receive_timeout_s: float = Field(default=30.0, gt=0)
    """How long the body of an image or mask may take to arrive; it holds one of those places all the while."""
    drain_s: float = Field(default=20.0, gt=0)
    """How long requests under way may go on after SIGTERM; then their connections are cut. Whoever ends the service
    should wait for longer before it kills."""

    # The model that answers.
    model: str = ""
    """Bundle folder to begin with. Empty: the starter model of the package."""
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    """Where onnxruntime runs. `auto` takes CUDA where it is installed; `cuda` and `tensorrt` refuse to fall back."""
    precision: Literal["auto", "fp32", "fp16", "int8"] = "auto"
    """Which of a bundle's graphs answers. `auto`: int8 on a CPU that multiplies bytes in one step (VNNI), fp16 on a
    GPU, else fp32. Of a bundle without it the fp32 graph answers."""
    inference_threads: int = Field(default=0, ge=0)
    """Cores that inferences share: a lone one takes all, several at one time take fewer each. 0: the cores that this
    process may use."""
    max_batch: int = Field(default=8, gt=0)
    """Images of one size that a GPU takes at one time. A CPU takes them one by one, which is no slower."""
    max_batch_delay_ms: float = Field(default=0.0, ge=0)
    """How long an image waits on a GPU for others to join it, beyond the wait for its turn."""
    max_inference_bytes: int = Field(default=2_500_000_000, gt=0)
    """Most memory that one inference may be expected to take, in bytes: 16 for each pixel and class, so 14 megapixels
    at 11 classes; of transformers at native size also the square of the number of patches."""
    max_native_pixels: int = Field(default=2_100_000, gt=0)
    """Largest image for a model that runs at native size (bundle `long_side` 0): its memory grows with the image."""
    extra_models: int = Field(default=1, ge=1)
    """Versions asked for by `?model=` that stay loaded beside the active one."""
    model_poll_s: float = Field(default=1.0, gt=0)
    """How often the serving process looks whether another version was activated."""

    # The loop.
    retrain_after_images: int = Field(default=50, gt=0)
    """New images in the pool that start a run by themselves."""
    min_labelled_images: int = Field(default=4, gt=0)
    """Labelled images without which no run starts."""
    recipe: str = ""
    """Recipe of a run. Empty: the package's `runs/recipe.toml`."""
    trainer_python: str = ""
    """Interpreter that has the trainer and the exporter. Empty: the one that runs the service."""
    gate_tolerance_miou: float = Field(default=0.0, ge=0.0, le=1.0)
    """How much mIoU (0..1) a candidate may lose and still be activated."""
    heartbeat_s: float = Field(default=5.0, gt=0)
    """How often a running run says that it is alive."""
    stop_grace_s: float = Field(default=30.0, gt=0)
    """How long a trainer may take to save its state after it was asked to stop; then it is killed."""
    run_timeout_s: float = Field(default=24 * 3600.0, gt=0)
    """Longest run, from start to candidate; then it is stopped and counted as failed."""

    # What is written about it.
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @property
    def resolved_database_url(self) -> str:
        """`database_url`, or SQLite in the data folder."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'maskloop.db').absolute()}"

    @property
    def tmp_dir(self) -> Path:
        """Where uploads wait: on the disk of the data, since the system's own may be small. Emptied by each start."""
        return self.data_dir / "tmp"

    @property
    def start_model(self) -> Path:
        """Bundle folder to begin with; it may not exist."""
        return Path(self.model) if self.model else PACKAGE / "starter"

    @property
    def recipe_path(self) -> Path:
        """The recipe that a run is made from."""
        return Path(self.recipe) if self.recipe else PACKAGE / "runs" / "recipe.toml"

    @property
    def python(self) -> str:
        """The interpreter that runs `-m trainer` and `-m exporter`."""
        return self.trainer_python or sys.executable

    @property
    def threads(self) -> int:
        """Cores that inferences share, at least 1."""
        return self.inference_threads or usable_cores()

    @property
    def batch_delay_s(self) -> float:
        """`max_batch_delay_ms` in seconds."""
        return self.max_batch_delay_ms / 1000


def mistyped_variables() -> dict[str, str | None]:
    """Variables of the environment that look like settings and are none, each with the name that was perhaps meant."""
    known = list(Settings.model_fields)
    named = {name: name.lower().removeprefix(PREFIX.lower()) for name in os.environ if name.upper().startswith(PREFIX)}
    meant = {name: difflib.get_close_matches(bare, known, n=1) for name, bare in named.items() if bare not in known}
    return {name: PREFIX + close[0].upper() if close else None for name, close in sorted(meant.items())}
