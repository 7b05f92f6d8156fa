"""How many tokens can pass the encoder at a time on this machine.

On a GPU by trying: the longest batch of the run goes forward and backward, and each time that memory runs out the
chunk is halved. A CPU has no such signal (the system kills the process), so there a small chunk is passed, what it
keeps for the backward pass is counted, and the rest is proportion.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ragcun_cli.data.tokens import TokenBatch
from ragcun_cli.environment import free_memory_of_machine
from ragcun_cli.errors import EnvironmentUnfit
from ragcun_cli.train.random_state import random_state, set_random_state

CPU_PROBE_TOKENS = 1024
# Of the memory that is free: what a step keeps. The rest is for its gradients, the allocator's gaps and others, and
# for the one layer at a time that gradient checkpointing computes again.
CPU_SHARE = 0.4
OUT_OF_MEMORY_HINT = (
    "Set gradient_checkpointing: true, a smaller max_length or batch_size, or train on a machine with more memory."
)
SMALLEST_CHUNK = 64  # tokens; a machine without room for these cannot train the encoder at all


@dataclass(frozen=True)
class ChunkSize:
    """tokens: of one pass, None for the whole batch at once. explained: how it was found, one phrase."""

    tokens: int | None
    explained: str


def find_chunk_size(
    embed: Callable[[TokenBatch], Tensor],
    longest: TokenBatch,
    device: torch.device,
    reserved_bytes: int,
    by_trying: bool = True,
    sharing: int = 1,
) -> ChunkSize:
    """The largest chunk that fits, for the run's longest batch.

    Args:
        embed: tokens -> embeddings with gradient; its weights' gradients are cleared by the caller.
        reserved_bytes: what training will need besides, such as the optimiser's moments.
        by_trying: on a GPU; False where a pass takes part in other processes', which do not fail together.
        sharing: how many processes share the memory.

    Raises:
        EnvironmentUnfit: if not even a small chunk fits.
    """
    state = random_state()
    try:
        if device.type == "cuda" and by_trying:
            return _by_trying(embed, longest, device, reserved_bytes)
        return _by_proportion(embed, longest, reserved_bytes, sharing)
    finally:
        set_random_state(state)


def halved(tokens: int | None, total: int) -> int:
    """The next smaller chunk after memory ran out with batches of `total` tokens.

    Raises:
        EnvironmentUnfit: if it is too small to go on.
    """
    before = min(tokens or total, total)
    if before // 2 < SMALLEST_CHUNK:
        raise EnvironmentUnfit(f"out of memory with {before} tokens in one pass of the encoder", OUT_OF_MEMORY_HINT)
    return before // 2


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, on a GPU or a CPU."""
    said = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in said)
    )


def release_memory() -> None:
    """After a failed step: drop what it held, and give the GPU's unused blocks back."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _by_trying(
    embed: Callable[[TokenBatch], Tensor], longest: TokenBatch, device: torch.device, reserved_bytes: int
) -> ChunkSize:
    total = int(longest.lengths.sum())
    reserved = torch.empty(reserved_bytes, dtype=torch.uint8, device=device)
    tokens: int | None = None
    while not _fits(embed, first_tokens(longest, tokens or total)):
        tokens = halved(tokens, total)
    del reserved
    release_memory()
    found = f"the longest batch ({total} tokens) fits at once" if tokens is None else f"found by trying, of {total}"
    return ChunkSize(tokens, found)


def _fits(embed: Callable[[TokenBatch], Tensor], chunk: TokenBatch) -> bool:
    fits = True
    try:
        embed(chunk).sum().backward()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        fits = False
    release_memory()
    return fits


def _by_proportion(
    embed: Callable[[TokenBatch], Tensor], longest: TokenBatch, reserved_bytes: int, sharing: int
) -> ChunkSize:
    total = int(longest.lengths.sum())
    probe = first_tokens(longest, CPU_PROBE_TOKENS)
    per_token = kept_bytes(embed, probe) / int(probe.lengths.sum())
    free = free_memory() // sharing
    budget = CPU_SHARE * (free - reserved_bytes)
    affordable = int(budget / per_token)
    if affordable >= total:
        return ChunkSize(None, f"the longest batch ({total} tokens, {total * per_token / 1e9:.2f} GB) fits at once")
    if affordable < SMALLEST_CHUNK:
        raise EnvironmentUnfit(
            f"{free / 1e9:.1f} GB of memory are free; the optimiser needs {reserved_bytes / 1e9:.1f} GB and "
            f"{SMALLEST_CHUNK} tokens {SMALLEST_CHUNK * per_token / 1e9:.1f} GB",
            OUT_OF_MEMORY_HINT,
        )
    # A power of two: arms that find a little more or less free memory still pass, and drop out, alike.
    tokens = 1 << (affordable.bit_length() - 1)
    return ChunkSize(tokens, f"{per_token / 1e6:.2f} MB per token, {budget / 1e9:.1f} GB for them")


def free_memory() -> int:
    """Bytes that this process may still take: the GPU's, or where there is none the machine's."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    return free_memory_of_machine()


def kept_bytes(embed: Callable[[TokenBatch], Tensor], batch: TokenBatch) -> int:
    """What a pass keeps for its backward pass, bytes; each storage counted once."""
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        # A parameter is there anyway.
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        embeddings = embed(batch)
    del embeddings
    return sum(kept.values())


def first_tokens(batch: TokenBatch, tokens: int) -> TokenBatch:
    """The longest texts of about so many tokens, at least one text."""
    order = np.argsort(-batch.lengths, kind="stable")
    fitting = int((np.cumsum(batch.lengths[order]) <= tokens).sum())
    return batch.select(order[: max(1, fitting)])
