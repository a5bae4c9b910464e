"""The methods by their name in a recipe."""

from collections.abc import Callable

from trainer.config import Method
from trainer.data.loaders import LabelledBatch, UnlabelledBatch
from trainer.methods.context import StepContext
from trainer.methods.fixmatch import fixmatch
from trainer.methods.student_batch import StudentBatch
from trainer.methods.supervised import supervised
from trainer.methods.unimatch_v1 import unimatch_v1
from trainer.methods.unimatch_v2 import unimatch_v2

METHODS: dict[Method, Callable[[LabelledBatch, UnlabelledBatch | None, StepContext], StudentBatch]] = {
    "supervised": supervised,
    "fixmatch": fixmatch,
    "unimatch_v1": unimatch_v1,
    "unimatch_v2": unimatch_v2,
}
