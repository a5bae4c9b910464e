"""Data-parallel processes: a single one, or those that `accelerate launch` or torchrun started.

Random draws and means are those of the whole batch, so n processes give the same result as one, up to rounding.
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

from trainer.run_error import RunError


@dataclass(frozen=True, slots=True)
class Processes:
    """This process's device, its rank (0 to `count` - 1), and collective operations.

    All processes must call these operations in the same order.
    """

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and events."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """This process's rows of a global batch."""
        return range(self.rank * batch // self.count, (self.rank + 1) * batch // self.count)

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.count == 1:
            return tensor
        tensor = tensor.clone()
        all_reduce(tensor, ReduceOp.SUM)
        return tensor

    def minimum(self, tensor: Tensor) -> Tensor:
        """The smallest value over all processes."""
        if self.count > 1:
            tensor = tensor.clone()
            all_reduce(tensor, ReduceOp.MIN)
        return tensor

    def any(self, *, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.count == 1:
            return flag
        return bool(self.total(torch.tensor(int(flag), device=self.device)).item())

    def barrier(self) -> None:
        """Wait until all processes have called this."""
        if self.count > 1:
            barrier()

    def data_parallel(self, student: nn.Module) -> nn.Module:
        """The student, wrapped so that the backward pass averages the processes' gradients."""
        if self.count == 1:
            return student
        return DistributedDataParallel(student, device_ids=[self.device] if self.device.type == "cuda" else None)

    def sync_batch_norms(self, student: nn.Module) -> nn.Module:
        """The student with batch-norm statistics over all processes; unchanged on CPUs, which lack this."""
        if self.count == 1 or self.device.type != "cuda":
            return student
        return cast("nn.Module", convert_sync_batchnorm(student))  # type: ignore[no-untyped-call]


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is the first GPU, or else the CPU. Raises RunError if it is not available."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RunError(f"train.device = {name!r}: is not available ({error}); use auto, cpu or cuda") from error
    return device


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Join the launcher's process group, if there is one. Raises RunError as `pick_device`."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes(pick_device(device))
        return
    state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
    yield Processes(state.device, state.process_index, state.num_processes)
    # DistributedDataParallel must be collected first, or both wait for each other. After an error the other processes
    # may never get here; the launcher ends them.
    gc.collect()
    destroy_process_group()
