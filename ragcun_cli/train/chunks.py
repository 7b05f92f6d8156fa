"""One loss over a batch that need not fit into memory: GradCache (arXiv 2101.06983).

1. Every chunk of the batch passes the encoder; only embeddings are kept, and the random state each chunk began with.
2. The loss of all embeddings gives the gradient of each.
3. Every chunk passes again, from its random state, and takes its embeddings' gradient down to the weights.

The gradient is that of the whole batch, exactly. The last chunk passes once: its graph is kept from step 1. A batch
that fits is one chunk, so this is then plain training.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ragcun_cli.data.tokens import TokenBatch, chunks_within
from ragcun_cli.train.hardware import full_float32
from ragcun_cli.train.random_state import random_state, set_random_state

Result = TypeVar("Result")


def backward_in_chunks(
    embed: Callable[[TokenBatch], Tensor],
    batch: TokenBatch,
    chunk_tokens: int | None,
    backward: Callable[[Tensor], Result],
) -> Result:
    """Accumulate the gradient of a loss of the batch's embeddings into the encoder's weights.

    Args:
        embed: tokens -> embeddings (n, D), with gradient.
        chunk_tokens: tokens that pass at a time; None for all.
        backward: takes the embeddings (n, D), in the batch's order, computes the loss and calls its backward.

    Returns:
        What `backward` returned.
    """
    chunks = list(chunks_within(batch.lengths, chunk_tokens))
    earlier = [_WithoutGraph.of(embed, batch.select(chunk)) for chunk in chunks[:-1]]
    last = embed(batch.select(chunks[-1]))
    order = np.concatenate(chunks)
    embeddings = torch.cat([*(each.embeddings for each in earlier), last.detach()])
    leaf = embeddings[torch.from_numpy(np.argsort(order)).to(last.device)].requires_grad_()
    with full_float32():
        result = backward(leaf)
    assert leaf.grad is not None
    gradients = leaf.grad[torch.from_numpy(order).to(last.device)].split([len(chunk) for chunk in chunks])
    torch.autograd.backward(last, gradients[-1].to(last.dtype))
    with _random_state_kept():
        for each, gradient in zip(earlier, gradients[:-1], strict=True):
            again = each.pass_again(embed)
            torch.autograd.backward(again, gradient.to(again.dtype))
    return result


def backward_at_once(embeddings: Tensor, backward: Callable[[Tensor], Result]) -> Result:
    """The same for embeddings whose graph is there: the loss and its gradient in full float32, then the model's."""
    leaf = embeddings.detach().requires_grad_()
    with full_float32():
        result = backward(leaf)
    torch.autograd.backward(embeddings, leaf.grad)
    return result


class _WithoutGraph:
    """A chunk's embeddings, and what makes the same ones again with their graph."""

    def __init__(self, batch: TokenBatch, embeddings: Tensor, state: dict[str, Tensor]) -> None:
        self.batch = batch
        self.embeddings = embeddings
        self._random_state = state

    @classmethod
    def of(cls, embed: Callable[[TokenBatch], Tensor], batch: TokenBatch) -> _WithoutGraph:
        state = random_state()
        with torch.no_grad():
            return cls(batch, embed(batch), state)

    def pass_again(self, embed: Callable[[TokenBatch], Tensor]) -> Tensor:
        set_random_state(self._random_state)
        return embed(self.batch)


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)
