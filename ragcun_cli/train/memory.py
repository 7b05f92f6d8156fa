"""How many tokens can pass through the encoder at a time on this machine.

On a GPU this is tried out: the run's longest batch goes forward and backward, and each time memory runs out the
chunk is halved. A CPU has no such signal (the system kills the process), so there a small chunk is run, what it
keeps for the backward pass is measured, and the limit is extrapolated from that.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ragcun_cli.arrays import Numbers
from ragcun_cli.data.batches import epoch_order
from ragcun_cli.data.tokens import TokenBatch
from ragcun_cli.data.triples.table import TripleTable
from ragcun_cli.environment import free_memory_of_machine
from ragcun_cli.errors import EnvironmentUnfit
from ragcun_cli.train.random_state import random_state, set_random_state
from ragcun_cli.train.training import Training
from ragcun_cli.train.world import all_reduce_max

CPU_PROBE_TOKENS = 1024
# The share of free memory for what a step keeps. The rest is for gradients, the allocator's gaps and other uses, and
# for the one layer at a time that gradient checkpointing recomputes.
CPU_SHARE = 0.4
OUT_OF_MEMORY_HINT = (
    "Set gradient_checkpointing: true, a smaller max_length or batch_size, or train on a machine with more memory."
)
SMALLEST_CHUNK = 64  # tokens; a machine without room for these cannot train the encoder at all
ADAM_BYTES = 8  # per parameter: two float32 moments
UNLIMITED = 1 << 62  # tokens per pass


@dataclass(frozen=True)
class ChunkSize:
    """A chunk size. tokens: per pass, None for the whole batch at once. explained: how it was found, in a phrase."""

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
    """Find the largest chunk of the run's longest batch that fits.

    Args:
        embed: tokens -> embeddings with gradient; the caller clears the weights' gradients.
        reserved_bytes: what training will also need, such as the optimiser's moments.
        by_trying: on a GPU, try it out; False where passes are shared with processes that do not fail together.
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
    """Return the next smaller chunk after memory ran out with batches of `total` tokens.

    Raises:
        EnvironmentUnfit: if that is too small to continue.
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
    """Drop what a failed step held, and return the GPU's unused blocks."""
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
    found = f"the longest batch ({total} tokens) fits whole" if tokens is None else f"found by trial, out of {total}"
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
        return ChunkSize(None, f"the longest batch ({total} tokens, {total * per_token / 1e9:.2f} GB) fits whole")
    if affordable < SMALLEST_CHUNK:
        raise EnvironmentUnfit(
            f"{free / 1e9:.1f} GB of memory is free; the optimiser needs {reserved_bytes / 1e9:.1f} GB and "
            f"{SMALLEST_CHUNK} tokens need {SMALLEST_CHUNK * per_token / 1e9:.1f} GB",
            OUT_OF_MEMORY_HINT,
        )
    # A power of two: arms that find slightly different free memory still use the same passes and dropout.
    tokens = 1 << (affordable.bit_length() - 1)
    return ChunkSize(tokens, f"{per_token / 1e6:.2f} MB per token, {budget / 1e9:.1f} GB available")


def free_memory() -> int:
    """Return the bytes that this process may still take: on the GPU or, without one, on the machine."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    return free_memory_of_machine()


def kept_bytes(embed: Callable[[TokenBatch], Tensor], batch: TokenBatch) -> int:
    """Return the bytes that a forward pass keeps for its backward pass, counting each storage once."""
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        # A parameter is in memory anyway.
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        embeddings = embed(batch)
    del embeddings
    return sum(kept.values())


def first_tokens(batch: TokenBatch, tokens: int) -> TokenBatch:
    """Select the longest texts, up to about `tokens` tokens; at least one text."""
    order = np.argsort(-batch.lengths, kind="stable")
    fitting = int((np.cumsum(batch.lengths[order]) <= tokens).sum())
    return batch.select(order[: max(1, fitting)])


def choose_chunk(training: Training, table: TripleTable) -> None:
    """Set how many tokens pass at a time: the recipe's number, or what a probe finds."""
    recipe = training.recipe
    if recipe.freeze_base:
        return
    size = (
        ChunkSize(recipe.chunk_tokens, "chunk_tokens from the recipe")
        if recipe.chunk_tokens
        else probe_chunk(training, _longest_batch(training, table))
    )
    training.progress.chunk_tokens = size.tokens
    training.plan = dataclasses.replace(training.plan, chunk=size.explained)


def probe_chunk(training: Training, longest: TokenBatch) -> ChunkSize:
    """Find how many tokens of this process's share of a batch can pass at a time; the same for all processes."""
    parameters = sum(each.numel() for each in training.trainable())
    training.encoder.train()
    # DDP's wrapper would exchange gradients, and processes may try unequally often; FSDP2 has no other call.
    spread_out = training.spread.strategy == "fsdp"
    size = find_chunk_size(
        training.model if spread_out else training.encoder,
        longest,
        training.encoder.device,
        ADAM_BYTES * parameters // (training.world.size if spread_out else 1),
        by_trying=not spread_out,
        sharing=1 if training.hardware.device == "cuda" else training.world.local_size,
    )
    training.optimiser.zero_grad()
    own = size.tokens or UNLIMITED
    smallest = -all_reduce_max(training.world, [-own], training.accelerator.device)[0]
    return size if smallest == own else ChunkSize(smallest, "found by another process")


def _longest_batch(training: Training, table: TripleTable) -> TokenBatch:
    """Return this process's share of the batch with the most tokens in the whole run."""
    recipe, plan = training.recipe, training.plan
    lengths = _row_lengths(training.text_lengths, table)
    longest, number = -1, 0
    for epoch in range(-(-plan.total_steps // plan.steps_per_epoch)):
        per_epoch = plan.triples // recipe.batch_size
        order = epoch_order(len(table), recipe.seed, epoch)[: per_epoch * recipe.batch_size]
        of_batches = lengths[order].reshape(per_epoch, recipe.batch_size).sum(axis=1)
        if of_batches.max() > longest:
            longest, number = int(of_batches.max()), epoch * per_epoch + int(of_batches.argmax())
    texts = training.batches.batch(number).texts()
    inputs = training.make_input(texts[training.shares(texts)[training.world.rank]])
    assert isinstance(inputs, TokenBatch)
    return inputs


def _row_lengths(text_lengths: Numbers, table: TripleTable) -> Numbers:
    """Tokens of each triple, (triples,)."""
    up_to = np.concatenate([[0], np.cumsum(text_lengths[table.negatives])])
    starts = np.concatenate([[0], table.negative_ends[:-1]])
    of_negatives = up_to[table.negative_ends] - up_to[starts]
    total: Numbers = text_lengths[table.queries] + text_lengths[table.positives] + of_negatives
    return total
