"""Settings of the service, from environment variables. No other module reads the environment.

The variable of a field is `MASKLOOP_` and its name in capitals. The docstring below a field is its documentation:
effect, unit, and the meaning of an empty value or 0.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from service.addresses import is_loopback
from service.cores import usable_cores
from service.cron_schedule import CronSchedule, parse_schedule, parse_zone
from service.scopes import ANONYMOUS_SCOPES, Scope, parse_scopes
from service.server_settings import ServerSettings
from service.webhook_secret import decode_secret

if TYPE_CHECKING:
    from sqlalchemy import URL

PACKAGE = Path(__file__).parent
PREFIX = "MASKLOOP_"
# Of the client's commands, which may share the environment: MASKLOOP_SERVER.
CLIENT_VARIABLES = ("server",)
# For keys that an operator supplies.
MIN_API_KEY_LENGTH = 20


def _words(value: Any) -> Any:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _names(value: Any) -> Any:
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


def _scopes(value: Any) -> Any:
    return parse_scopes(value) if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
# With spaces in them.
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)]
Scopes = Annotated[tuple[Scope, ...], NoDecode, BeforeValidator(_scopes)]
OptionalScopes = Annotated[tuple[Scope, ...] | None, NoDecode, BeforeValidator(_scopes)]


class Settings(ServerSettings):
    """Configuration of one process; immutable once built."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", protected_namespaces=())

    # Access
    api_key: SecretStr = SecretStr("")
    """A key with every scope, for containers and other automated deployments. At least 20 characters. Empty: none."""
    api_key_file: str = ""
    """File with one key per line, each with every scope. Changes apply without a restart. Empty: none."""
    anonymous_scopes: OptionalScopes = None
    """Scopes of callers without a key: `predict`, `contribute`, or both. `train` and `admin` always need a key. Empty:
    none. Not set: both if `host` is a loopback address, none otherwise."""
    allowed_hosts: Words = ()
    """Domain names that are accepted as `Host` of calls without a key, and of changes with the key of a browser's
    cookie. Protects against DNS rebinding. IP addresses and names without a dot are always allowed. Empty: no
    others."""
    cors_origins: Words = ()
    """Origins whose web pages may call the service from a browser, such as `https://label.example.com`. `*`: all.
    Empty: only pages of the service."""
    open_metrics: bool = False
    """Serve `/metrics` without a key to every caller. If false, only callers on this machine need no key."""
    rate_limit_per_minute: int = Field(default=0, ge=0)
    """Maximum requests per minute for each key without a rate of its own; a burst may use all of them at once. 0: no
    limit."""
    anonymous_rate_limit_per_minute: int = Field(default=0, ge=0)
    """Maximum requests per minute for each address of callers without a key. 0: no limit. Behind a proxy on another
    machine, set `FORWARDED_ALLOW_IPS` to its address, so that uvicorn trusts its `X-Forwarded-For`."""
    failed_keys_per_minute: int = Field(default=30, ge=0)
    """Maximum invalid keys per minute from one address; further ones get 429. Valid keys from the address still work.
    0: no limit."""
    keys_poll_s: float = Field(default=1.0, gt=0)
    """Interval at which a serving process reloads the keys, in seconds. A new or revoked key takes effect at the
    next reload."""

    # Model and inference
    model: str = ""
    """Bundle folder of the first model. Empty: the starter model in `service/starter`."""
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    """Where onnxruntime runs inference. `auto`: CUDA if available, otherwise the CPU. With `cuda` and `tensorrt` the
    model fails to load if the device is missing."""
    precision: Literal["auto", "fp32", "fp16", "int8"] = "auto"
    """Which graph of a bundle to use; fp32 if the bundle lacks it. `auto`: int8 on a CPU with VNNI, fp16 on a GPU,
    otherwise fp32."""
    inference_threads: int = Field(default=0, ge=0)
    """Number of CPU threads that all inferences share. A single inference uses all, concurrent ones fewer each. 0: one
    per core that this process may use."""
    max_batch: int = Field(default=8, gt=0)
    """Maximum number of images of one size in one GPU inference. A CPU always infers one image at a time."""
    max_batch_delay_ms: float = Field(default=0.0, ge=0)
    """Extra time that an image waits on a GPU for others to share its batch, in milliseconds. 0: no extra wait."""
    max_inference_bytes: int = Field(default=1_200_000_000, gt=0)
    """Maximum estimated memory of one inference, in bytes; on a CPU also of all concurrent inferences, and separately
    of all concurrent image decoding. The estimate is about 16 bytes per pixel and class, at most 16 classes: the
    default allows 6 megapixels at 11 classes. A larger image is scaled down to the limit if the model's input is
    smaller still, otherwise it gets 413. Inferences that need at most a quarter of the limit do not count, up to one
    per core, nor does decoding that needs at most a sixteenth. Models that infer in windows have no such limit: each
    inference takes about 0.5 GB."""
    max_native_pixels: int = Field(default=2_100_000, gt=0)
    """Maximum width times height for models that infer at the image's own size without windows, in pixels. A larger
    image gets 413."""
    extra_models: int = Field(default=1, ge=1)
    """Number of model versions requested with `?model=` that stay loaded in addition to the active one."""
    model_poll_s: float = Field(default=1.0, gt=0)
    """Interval at which a serving process checks for a newly activated model, in seconds."""

    # Collection of images
    collect_share: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the requests to `/v1/segment` (0..1) whose image is kept in the pool although the client did not send
    `contribute=true`. 0: none. Set it only if everyone whose images arrive has agreed: see security.md."""
    collect_below_confidence: float = Field(default=1.0, gt=0.0, le=1.0)
    """Keep the image of a segmentation only if its mean confidence (0..1) is below this. 1: at every confidence. Does
    not apply to `POST /v1/images`."""
    collect_per_hour: int = Field(default=0, ge=0)
    """Maximum number of images that a process keeps from segmentations in an hour. 0: no limit."""
    pool_max_bytes: int = Field(default=0, ge=0)
    """Maximum total size of the encoded images in the pool, in bytes; further ones are not kept. 0: no limit."""

    # Retention
    keep_images_days: float = Field(default=0.0, ge=0)
    """Age in days after which unlabelled images are deleted. Ages are times during which a worker ran, see
    operations.md. 0: never."""
    keep_images_bytes: int = Field(default=0, ge=0)
    """Maximum total size of the unlabelled images, in bytes; above it, the oldest are deleted. 0: no limit."""
    keep_runs_days: float = Field(default=0.0, ge=0)
    """Time in days after which the files of a run are deleted, but not its recipe, once it has ended and its model is
    not in use. 0: never."""
    keep_runs_bytes: int = Field(default=0, ge=0)
    """Maximum total size of the files of runs, in bytes; above it, the oldest are deleted after a day. 0: no limit."""
    keep_models_days: float = Field(default=0.0, ge=0)
    """Time in days without use after which a model is deleted; the active one and others in use are kept. 0: never."""
    keep_models_bytes: int = Field(default=0, ge=0)
    """Maximum total size of the models, in bytes; above it, those that were not in use for the longest time are
    deleted, after a day. 0: no limit."""

    # Training
    retrain_after_images: int = Field(default=50, ge=0)
    """Number of unlabelled images since the last run that starts a training run. 0: images start none."""
    retrain_after_labels: int = Field(default=50, ge=0)
    """Number of labels, new or replaced, since the last run that starts a training run. 0: labels start none."""
    retrain_cron: str = ""
    """Cron expression of the times at which a training run starts if there are new images or labels: minute, hour, day
    of the month, month, day of the week (0 is Sunday), such as `0 3 * * *`. Times that no worker saw, because none ran,
    start one run in all. Empty: none."""
    time_zone: str = "UTC"
    """Time zone of `retrain_cron`, such as `Europe/Berlin`."""
    retrain_cooldown_s: float = Field(default=0.0, ge=0)
    """Time after the end of a run in which none starts by itself, in seconds."""
    start_from: Literal["active", "encoder"] = "active"
    """Where training starts, unless a request says otherwise: from the checkpoint of the active model, if its bundle
    has one, or from the encoder's pretrained weights."""
    min_labelled_images: int = Field(default=4, gt=0)
    """Number of labelled images that a training run needs; with fewer, none starts."""
    recipe: str = ""
    """Path of the training recipe, a TOML file. Empty: `service/runs/recipe.toml`."""
    trainer_python: str = ""
    """Python interpreter that runs the trainer and the exporter. Empty: the one that runs the service."""
    gate_margin_miou: float = Field(default=0.01, ge=0.0, le=1.0)
    """Loss of mIoU (0..1) on the validation images that does not matter. A new model that loses more, against the
    active one or the best so far, is rejected."""
    gate_level: float = Field(default=0.05, gt=0.0, lt=0.5)
    """Probability with which chance alone may mislead the gate, for each of its limits."""
    gate_mode: Literal["not_worse", "better"] = "not_worse"
    """What a new model must show to be activated: that it does not lose `gate_margin_miou`, or that it is better than
    the active one."""
    gate_guard_classes: Names = ()
    """Names of classes in which a loss above `gate_margin_miou` rejects a new model, if at least 10 validation images
    show the class. Empty: none."""
    drift_window: int = Field(default=200, ge=10)
    """Number of new images that are compared with the training data of the active model at a time."""
    drift_images_between_false_alarms: int = Field(default=10_000, gt=0, le=1_000_000)
    """Expected number of images between two drift alarms while incoming images do not change; at least 2 windows. More:
    fewer false alarms, and small changes are noticed later. The duration of a test grows with it."""
    retrain_on_drift: bool = False
    """Whether a drift alarm starts a training run, however few images are new."""
    release_mode: Literal["auto", "ask", "shadow", "canary"] = "auto"
    """What happens to a new model that the gate promotes. `auto`: it is activated. `ask`: it waits for a person.
    `shadow`: as `ask`, and meanwhile it also computes a share of the answers, unseen. `canary`: it answers a share of
    the requests, and is activated unless it is worse."""
    release_undecided: Literal["keep", "ask", "shadow"] = "ask"
    """What happens to a new model about which the gate is undecided. `keep`: it is declined. `ask` and `shadow`: as
    above. The active model serves in any case."""
    shadow_share: float = Field(default=0.1, gt=0.0, le=1.0)
    """Share of the images (0..1) that the candidate of a shadow release segments as well, while no request is in
    progress; others are dropped."""
    canary_share: float = Field(default=0.1, gt=0.0, le=1.0)
    """Share of the images (0..1) that the candidate of a canary release segments, of requests that name no version. The
    same image always gets the same model."""
    canary_requests: int = Field(default=500, gt=0)
    """Number of answers after which the candidate of a canary release is activated."""
    watch_requests: int = Field(default=10_000, ge=0)
    """Number of inferences of a newly released model during which the service withdraws it if it fails more often, or
    is slower, than the model before. 0: it is not watched after its activation."""
    watch_level: float = Field(default=0.01, gt=0.0, lt=0.5)
    """Probability with which a released model that is as good as the one before is withdrawn."""
    webhook_url: str = ""
    """URL to which the worker sends events of runs and releases, as JSON with a signature. Redirects are not followed.
    Empty: none."""
    webhook_secret: SecretStr = Field(default=SecretStr(""), validate_default=True)
    """Key of the signature, `whsec_` and 24 to 64 bytes in base64, as the Standard Webhooks specification says. Needed
    with `webhook_url`."""
    heartbeat_s: float = Field(default=5.0, gt=0)
    """Interval at which workers and their runs report that they are alive, in seconds. One that is silent for six of
    them counts as dead."""
    stop_grace_s: float = Field(default=30.0, gt=0)
    """Time that the trainer has to save its state after SIGTERM, in seconds; then it is killed."""
    stall_s: float = Field(default=1800.0, gt=0)
    """Time without an event from the trainer or the exporter after which it counts as hung, in seconds; then it is
    stopped and the attempt repeated. The trainer reports every step and, in an evaluation, every minute; a stage of the
    exporter takes minutes, for large networks on a CPU longer."""
    run_timeout_s: float = Field(default=24 * 3600.0, gt=0)
    """Maximum duration of a training run including export, in seconds. A longer run is stopped and fails."""

    # Logs
    log_format: Literal["console", "json"] = "console"
    """Format of log lines on stderr: readable text, or one JSON object per line."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Minimum level of the log messages that are written."""

    @field_validator("api_key")
    @classmethod
    def _check_api_key(cls, key: SecretStr) -> SecretStr:
        text = key.get_secret_value()
        if text and (len(text) < MIN_API_KEY_LENGTH or len(text.split()) > 1):
            raise ValueError(
                f"a key must be one word of at least {MIN_API_KEY_LENGTH} characters; create one with "
                "`openssl rand -hex 32`"
            )
        return key

    @field_validator("webhook_url")
    @classmethod
    def _check_webhook_url(cls, url: str) -> str:
        if url and not re.fullmatch(r"https?://[^\s/@]+(/\S*)?", url):
            raise ValueError(
                "the URL must begin with https:// or http://, without a user name; leave it empty for none"
            )
        return url

    @field_validator("webhook_secret")
    @classmethod
    def _check_webhook_secret(cls, secret: SecretStr, info: ValidationInfo) -> SecretStr:
        if info.data.get("webhook_url"):
            decode_secret(secret.get_secret_value())
        return secret

    @field_validator("anonymous_scopes")
    @classmethod
    def _check_anonymous_scopes(cls, scopes: tuple[Scope, ...] | None) -> tuple[Scope, ...] | None:
        if refused := [scope for scope in scopes or () if scope not in ANONYMOUS_SCOPES]:
            raise ValueError(
                f"{' and '.join(refused)} always need a key; choose some of {','.join(ANONYMOUS_SCOPES)}, or leave the "
                "setting empty for none"
            )
        return scopes

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, zone: str) -> str:
        return parse_zone(zone).key

    @field_validator("retrain_cron")
    @classmethod
    def _check_retrain_cron(cls, expression: str) -> str:
        return parse_schedule(expression, "UTC").expression if expression.strip() else ""

    @property
    def schedule(self) -> CronSchedule | None:
        """`retrain_cron` in `time_zone`."""
        return parse_schedule(self.retrain_cron, self.time_zone) if self.retrain_cron else None

    @property
    def resolved_anonymous_scopes(self) -> tuple[Scope, ...]:
        """`anonymous_scopes`, or the default for `host`."""
        if self.anonymous_scopes is not None:
            return self.anonymous_scopes
        return ANONYMOUS_SCOPES if is_loopback(self.host) else ()

    @property
    def resolved_database_url(self) -> str | URL:
        """`database_url`, or SQLite in the data folder."""
        from sqlalchemy import URL  # noqa: PLC0415 - `up` reads the settings without a database

        # From parts: the path may contain `?` and `%`.
        file = str((self.data_dir / "maskloop.db").absolute())
        return self.database_url or URL.create("sqlite", database=file)

    @property
    def has_database(self) -> bool:
        """Whether there is a database; opening one creates it."""
        return bool(self.database_url) or (self.data_dir / "maskloop.db").exists()

    @property
    def tmp_dir(self) -> Path:
        """Folder for uploads in progress, not in /tmp, which may be small. Each start empties it."""
        return self.data_dir / "tmp"

    @property
    def start_model(self) -> Path:
        """Bundle folder of the first model; it may not exist."""
        return Path(self.model) if self.model else PACKAGE / "starter"

    @property
    def recipe_path(self) -> Path:
        """Training recipe."""
        return Path(self.recipe) if self.recipe else PACKAGE / "runs" / "recipe.toml"

    @property
    def python(self) -> str:
        """Interpreter of the trainer and the exporter."""
        return self.trainer_python or sys.executable

    @property
    def threads(self) -> int:
        """Number of CPU threads for inference, at least 1."""
        return self.inference_threads or usable_cores()

    @property
    def batch_delay_s(self) -> float:
        """`max_batch_delay_ms` in seconds."""
        return self.max_batch_delay_ms / 1000


def mistyped_variables() -> dict[str, str | None]:
    """Find variables with the prefix MASKLOOP_ that are no settings, and the most similar setting."""
    known = [*Settings.model_fields, *CLIENT_VARIABLES]
    named = {name: name.lower().removeprefix(PREFIX.lower()) for name in os.environ if name.upper().startswith(PREFIX)}
    similar = {name: difflib.get_close_matches(bare, known, n=1) for name, bare in named.items() if bare not in known}
    return {name: PREFIX + close[0].upper() if close else None for name, close in sorted(similar.items())}


def open_telemetry_variables() -> dict[str, str]:
    """Return the environment variables that configure OpenTelemetry."""
    return {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}
