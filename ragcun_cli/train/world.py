"""The processes that train together, and what they exchange.

Every process makes the same batches from the seed, takes its share of each batch's texts through the encoder, and then
receives everyone's embeddings: each computes the loss of the whole batch. No collective here carries a
gradient; `gather_rows` explains why the gradient is exact all the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ragcun_cli.arrays import Numbers


@dataclass(frozen=True)
class World:
    """This process's place: `rank` among all `size`, `local_rank` among the `local_size` on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run's folder and speaks for all."""
        return self.rank == 0

    def share(self, lengths: Numbers, rank: int | None = None) -> Numbers:
        """The texts (by number) that this process passes through the encoder, longest first.

        lengths: (n,) tokens, n >= size. Takes every size-th text by length: shares differ by at most one text, and
        by about one text's tokens.
        """
        order = np.argsort(-lengths, kind="stable")
        return order[self.rank if rank is None else rank :: self.size]


ALONE = World()


def world_of_environment() -> World:
    """Read the world that torch.distributed.run set; ALONE if it did not start this process."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if any(name not in os.environ for name in names):
        return ALONE
    return World(*(int(os.environ[name]) for name in names))


def gather_rows(rows: Tensor, places: Sequence[Numbers]) -> Tensor:
    """Every process's rows in the order of the whole batch, (n, D); gradient flows to this process's own rows.

    rows: (n_rank, D) of this process. places: for each process, where in the batch its rows belong, known to all.

    A loss of the result gives this process's rows their gradient of the whole batch's loss. Summed over processes,
    that is the full gradient; DDP and FSDP average instead, so each process multiplies its part by their number.
    This is exact and needs no communication in the backward pass.
    """
    most = max(len(each) for each in places)
    padded = rows.new_zeros((most, rows.shape[1]))
    padded[: len(rows)] = rows.detach()
    gathered = [torch.empty_like(padded) for _ in places]
    dist.all_gather(gathered, padded)
    gathered = [part[: len(each)] for part, each in zip(gathered, places, strict=True)]
    gathered[dist.get_rank()] = rows
    order = torch.from_numpy(np.argsort(np.concatenate(places))).to(rows.device)
    return torch.cat(gathered)[order]


def all_reduce_max(world: World, values: Sequence[int], device: torch.device) -> list[int]:
    """Return the maximum of each value over all processes."""
    if world.size == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.int64, device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return [int(value) for value in tensor.tolist()]


def broadcast_object(world: World, content: Any) -> Any:
    """Return the main process's object in every process; it must be picklable."""
    if world.size == 1:
        return content
    box = [content]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather_objects(world: World, content: Any) -> list[Any]:
    """Return every process's content, by rank, in the main process; an empty list in the others."""
    if world.size == 1:
        return [content]
    box: list[Any] | None = [None] * world.size if world.is_main else None
    dist.gather_object(content, box, dst=0)
    return box or []


def tensors_from_main(world: World, tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return the main process's tensors in every process, on the CPU; the others pass an empty dictionary.

    A checkpoint is on the main process's machine; other machines need not see its disk.
    """
    if world.size == 1:
        return tensors
    listed = broadcast_object(world, [(name, tensor.shape, tensor.dtype) for name, tensor in tensors.items()])
    received = {}
    for name, shape, dtype in listed:
        tensor = tensors[name].to(device) if world.is_main else torch.empty(shape, dtype=dtype, device=device)
        dist.broadcast(tensor, src=0)
        received[name] = tensor.cpu()
    return received


def barrier(world: World) -> None:
    """Wait for all processes."""
    if world.size > 1:
        dist.barrier()


@contextmanager
def first_on_each_machine(world: World) -> Iterator[None]:
    """Let one process per machine go first and fill the cache; the others then find everything there."""
    if world.local_rank > 0:
        barrier(world)
    yield
    if world.local_rank == 0:
        barrier(world)
