"""The processes of a run: one without any launcher, or as many as `accelerate launch` or torchrun started.

Each takes its share of every batch. What depends on the whole batch (random draws, means) is computed from the whole
batch, so n processes give what one gives, to rounding.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from accelerate import PartialState
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.distributed import ReduceOp, all_reduce, barrier, destroy_process_group
from torch.nn.parallel import DistributedDataParallel

from trainer.devices import pick_device


@dataclass(frozen=True, slots=True)
class Processes:
    """Which process this is, and where it computes.

    Attributes:
        device: where.
        rank: 0 for the one that writes files and events.
        count: how many there are.
    """

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """Which rows of a batch over all processes are this one's."""
        return range(self.rank * batch // self.count, (self.rank + 1) * batch // self.count)

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in each of them."""
        if self.count == 1:
            return tensor
        tensor = tensor.clone()
        all_reduce(tensor, ReduceOp.SUM)
        return tensor

    def least(self, tensor: Tensor) -> Tensor:
        """The smallest value over all processes, in each of them."""
        if self.count > 1:
            tensor = tensor.clone()
            all_reduce(tensor, ReduceOp.MIN)
        return tensor

    def anywhere(self, *, flag: bool) -> bool:
        """Whether the flag is up in any process; they meet here."""
        if self.count == 1:
            return flag
        return bool(self.total(torch.tensor(int(flag), device=self.device)).item())

    def wait(self) -> None:
        """Return when all processes are here."""
        if self.count > 1:
            barrier()

    def synchronised(self, student: nn.Module) -> nn.Module:
        """The student, with gradients averaged over the processes in the backward pass."""
        if self.count == 1:
            return student
        return DistributedDataParallel(student, device_ids=[self.device] if self.device.type == "cuda" else None)

    def joint_norms(self, student: nn.Module) -> nn.Module:
        """The student with batch norms that take their statistics over all processes, which GPUs alone can."""
        if self.count == 1 or self.device.type != "cuda":
            return student
        return cast("nn.Module", convert_sync_batchnorm(student))  # type: ignore[no-untyped-call]


def is_main() -> bool:
    """Whether this process speaks for all, before they have met: by what the launcher says."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """This process's place among its fellows, and its device.

    Args:
        device: the recipe's train.device; "auto" is this process's GPU, or the CPU where there is none.

    Raises:
        RunError: there is no such device here.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes(pick_device(device))
        return
    state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
    yield Processes(state.device, state.process_index, state.num_processes)
    # What averages gradients must be gone before the group is, or both wait for each other. After an error nobody is
    # sure to come here; then the launcher ends the others.
    gc.collect()
    destroy_process_group()
