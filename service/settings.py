"""What a person may set, and the only place that reads the environment.

Every field is `MASKLOOP_` plus its name in capitals: `MASKLOOP_PORT=9000`. Units stand in the names. Where a field may
be empty, the docstring under it says what empty means.
"""

from __future__ import annotations

import difflib
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.cores import usable_cores
from service.scopes import Scope, parse_scopes

PACKAGE = Path(__file__).parent
PREFIX = "MASKLOOP_"
# Of the keys that people bring themselves; ours are longer.
SHORTEST_API_KEY = 20


def _words(value: Any) -> Any:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _scopes(value: Any) -> Any:
    return parse_scopes(value) if isinstance(value, str) else value


# In the environment: words with commas between.
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
Scopes = Annotated[tuple[Scope, ...], NoDecode, BeforeValidator(_scopes)]


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
    """Segmentations admitted at one time, running and waiting; one more is told 503 with Retry-After. The images
    of batches wait for half of the places, and leave the others. As many images and masks for the pool are admitted
    beside them."""
    max_wait_s: float = Field(default=3.0, gt=0)
    """How long a segmentation may be expected to wait for those before it, by how long they took lately; one more is
    told 503, and so is who has waited for so long after all. Two for each core are let in whatever is expected, and may
    wait for any time."""
    max_batch_images: int = Field(default=100, gt=0)
    """Most images in one request to `/v1/segment/batch`. They wait on the disk of `data_dir`, not in memory."""
    max_batch_bytes: int = Field(default=200 * 2**20, gt=0)
    """Most bytes of such a request."""
    max_concurrent_batches: int = Field(default=4, gt=0)
    """Such requests under way at one time; one more is told 503 with Retry-After."""
    receive_timeout_s: float = Field(default=30.0, gt=0)
    """How long the body of an image or mask may take to arrive; it holds one of those places all the while."""
    send_timeout_s: float = Field(default=30.0, gt=0)
    """How long a client may take for 64 KiB of an answer that is ready for it; then its connection is ended, and what
    it still waits for is not done."""
    drain_s: float = Field(default=20.0, gt=0)
    """How long requests under way may go on after SIGTERM; then their connections are cut. Whoever ends the service
    should wait for longer before it kills."""

    # Who may ask: `python -m service keys create NAME --scope predict` makes keys.
    api_key: SecretStr = SecretStr("")
    """A key with every scope, for containers and other places where no command can be run. Empty: none."""
    api_key_file: str = ""
    """A file with such keys, one a line; a change is followed without a restart. Empty: none."""
    anonymous_scopes: Scopes = ()
    """What callers without a key may do from anywhere: `all`, or some of predict,contribute,train,admin. Empty:
    nothing, and on this machine everything for as long as no key was ever made."""
    published_on: str = ""
    """In a container: the address outside under which its port can be reached. 127.0.0.1 makes callers who come by it
    this machine's own, as on a loopback `host`; other containers of its network are not. Empty: the address that was
    asked decides."""
    allowed_hosts: Words = ()
    """Domain names by which callers without a key may call this machine's own service; IP addresses and names without
    a dot need no mention. It keeps pages out that point a name of theirs at 127.0.0.1."""
    cors_origins: Words = ()
    """Origins whose pages may ask from a browser, such as https://label.example.com; `*`: all. Empty: none."""
    open_metrics: bool = False
    """Answer /metrics without a key to everybody; callers on this machine need none anyway."""
    rate_limit_per_minute: int = Field(default=0, ge=0)
    """Requests that a key may send in a minute, where it has no rate of its own; all of them at once if need be. 0: any
    number."""
    anonymous_rate_limit_per_minute: int = Field(default=0, ge=0)
    """The same for callers without a key, by their address. 0: any number. Behind a proxy on another machine,
    FORWARDED_ALLOW_IPS tells uvicorn whose `X-Forwarded-For` to believe."""
    failed_keys_per_minute: int = Field(default=30, ge=0)
    """Keys that are not valid which may come from one address in a minute; one more is told 429 with Retry-After. Valid
    ones are let in from there all the same. 0: any number."""
    keys_poll_s: float = Field(default=1.0, gt=0)
    """How often a serving process looks whether keys were made or revoked."""

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
    max_inference_bytes: int = Field(default=1_200_000_000, gt=0)
    """Most memory that one inference may be expected to take, in bytes: 16 for each pixel and class, of which 16 count
    at most, so 6 megapixels at 11 classes. A larger image is reduced to that before, where the model would reduce it
    further (bundle `long_side`); else it is refused. Not for models that go by windows, which hold 0.5 GB. Inferences
    on a CPU that go on at one time share it, and so do, beside them, images that are decoded; not counted are those of
    a quarter or less, at most one for each core, and of images a sixteenth, of which two more may be decoded."""
    max_native_pixels: int = Field(default=2_100_000, gt=0)
    """Largest image for a model that runs at native size (bundle `long_side` 0, no windows): its memory grows with the
    image."""
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

    @field_validator("api_key")
    @classmethod
    def _long_enough(cls, key: SecretStr) -> SecretStr:
        if 0 < len(key.get_secret_value()) < SHORTEST_API_KEY or len(key.get_secret_value().split()) > 1:
            raise ValueError(f"one word of {SHORTEST_API_KEY} characters or more: `openssl rand -hex 32` makes one")
        return key

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


def open_telemetry_variables() -> dict[str, str]:
    """The variables by which OpenTelemetry is set up everywhere; `service/tracing.py` reads them."""
    return {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}
