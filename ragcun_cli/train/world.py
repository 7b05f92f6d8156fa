"""The processes that train together, and what passes between them.

Every process makes the same batches from the seed, takes its share of each batch's texts through the encoder, and then
has the embeddings of all: the loss is that of the whole batch, computed by each of them. No collective here carries a
gradient; `gather_rows` says how the gradient stays exact without.
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
    """rank: of this process among `size`; local_rank: among the `local_size` on this machine."""

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

        lengths: (n,) tokens, n >= size. Every size-th of the texts sorted by length: shares differ by one text, and
        in tokens by about one text's.
        """
        order = np.argsort(-lengths, kind="stable")
        return order[self.rank if rank is None else rank :: self.size]


ALONE = World()


def world_of_environment() -> World:
    """What torch.distributed.run told this process; alone where it did not start it."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if any(name not in os.environ for name in names):
        return ALONE
    return World(*(int(os.environ[name]) for name in names))


def gather_rows(rows: Tensor, places: Sequence[Numbers]) -> Tensor:
    """Every process's rows in the order of the whole batch, (n, D); gradient flows to this process's own rows.

    rows: (n_rank, D) of this process. places: for each process, where in the batch its rows belong, known to all.

    A loss of the result has, for the own rows, the gradient of the whole batch's loss. Added over processes that is
    the gradient of all; DDP and FSDP take the mean instead, so each multiplies its part by the number of processes.
    Exact, and without communication in the backward pass.
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
    """The largest of each value over all processes."""
    if world.size == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.int64, device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return [int(value) for value in tensor.tolist()]


def broadcast_object(world: World, content: Any) -> Any:
    """What the main process has, in all of them; picklable."""
    if world.size == 1:
        return content
    box = [content]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather_objects(world: World, content: Any) -> list[Any]:
    """Every process's content by rank, in the main one; empty in the others."""
    if world.size == 1:
        return [content]
    box: list[Any] | None = [None] * world.size if world.is_main else None
    dist.gather_object(content, box, dst=0)
    return box or []


def tensors_from_main(world: World, tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The main process's tensors in all of them, on the CPU; the others give an empty dictionary.

    A checkpoint lies where the main process runs; other machines need not see its disk.
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
    """One process of each machine goes first and fills its cache; the others then find it there."""
    if world.local_rank > 0:
        barrier(world)
    yield
    if world.local_rank == 0:
        barrier(world)
