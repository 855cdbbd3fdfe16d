"""The processes that train together, as ``torchrun`` starts them, and the device that each of them uses."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist

from edgekit.errors import StageError, UserError

__all__ = ["World", "joined_world", "leads"]

T = TypeVar("T")

# Number 0 may measure for hours while the others wait for it; that one of them is gone, torchrun notices by itself.
_PATIENCE = timedelta(days=7)
# What gloo says, in an error without a class of its own, when the other end of a connection has closed.
_GONE = ("connection closed by peer", "connection reset by peer", "broken pipe", "connection refused")


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among those that train together.

    Attributes:
        rank: From 0; number 0 measures, writes checkpoints and shows progress.
        size: How many there are.
        device: Where this one computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this is number 0."""
        return self.rank == 0

    @property
    def gpus(self) -> list[torch.device]:
        """The GPU that this process computes on, if any."""
        return [self.device] if self.device.type == "cuda" else []

    def part(self, items: Sequence[T]) -> Sequence[T]:
        """Returns this process's equal part of a batch; what does not divide evenly is left out."""
        each = len(items) // self.size
        return items[self.rank * each : (self.rank + 1) * each]

    def from_leader(self, value: T) -> T:
        """Returns number 0's value, a plain Python object, in every process."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        result: T = box[0]
        return result

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Returns the mean over all processes of a tensor without gradient."""
        if self.size == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.size


@contextmanager
def joined_world(device: Literal["auto", "cpu", "cuda"]) -> Iterator[World]:
    """Joins the processes that ``torchrun`` started (RANK, WORLD_SIZE, LOCAL_RANK); alone where there are none.

    Uses NCCL on GPUs, one a process, and gloo on CPUs. A group that the caller made is used and left as it is.

    Raises:
        UserError: A GPU is asked for and torch sees none, or fewer than there are processes on this machine.
        StageError: Another of the processes ended before its time.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = _device(device, local)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    own = size > 1 and not dist.is_initialized()
    if own:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        if dist.is_available() and dist.is_initialized():
            yield World(rank=dist.get_rank(), size=dist.get_world_size(), device=chosen)
            # Whoever leaves first takes its ends of the connections along, and with them what it still had to send.
            dist.barrier()
        else:
            yield World(device=chosen)
    except RuntimeError as error:
        if size > 1 and _is_loss(error):
            raise StageError(
                "another of the processes that train together has ended",
                hint="what it printed says why; with --resume the training goes on from the last whole epoch",
            ) from error
        raise
    finally:
        if own:
            dist.destroy_process_group()


def leads() -> bool:
    """Whether this process is number 0 of those that ``torchrun`` started, or alone; joins nothing."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return int(os.environ.get("WORLD_SIZE", "1")) == 1 or int(os.environ.get("RANK", "0")) == 0


def _is_loss(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or any(words in str(error).lower() for words in _GONE)


def _device(wanted: Literal["auto", "cpu", "cuda"], local: int) -> torch.device:
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cpu" or (wanted == "auto" and not seen):
        return torch.device("cpu")
    if local >= seen:
        raise UserError(
            f"process {local} of this machine wants a GPU of its own, torch sees {seen}",
            hint="start as many processes as there are GPUs, or train with device = 'cpu'",
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)
