"""One loss over a batch that need not fit into memory: GradCache (arXiv 2101.06983).

1. Every chunk of the batch is encoded; only embeddings and the random state each chunk began with are kept.
2. The loss of all embeddings gives the gradient of each.
3. Every chunk is encoded again from its random state, and backpropagates its embeddings' gradient to the weights.

The gradient is exactly that of the whole batch. The last chunk is encoded once: its graph is kept from step 1. A batch
that fits is one chunk, so this is then plain training.

With several processes, each encodes its own chunks, and step 2 sees everyone's embeddings. DDP adds the gradients
up in the last pass only. FSDP2 does so in every pass, so all processes must make equally many: one with
fewer chunks encodes an extra text, whose gradient is zero, to make up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ragcun_cli.arrays import Numbers
from ragcun_cli.data.tokens import TokenBatch
from ragcun_cli.train.hardware import full_float32
from ragcun_cli.train.random_state import random_state, set_random_state

Result = TypeVar("Result")
Chunks = Sequence[Numbers]


@dataclass(frozen=True)
class Exchange:
    """How the passes of a batch take part in exchanging gradients between processes.

    quiet(): a context in which a pass keeps its gradient to itself. in_last_pass: whether the batch's last pass
    exchanges what all have kept. extra_passes: how many more passes the busiest process makes.
    """

    quiet: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    in_last_pass: bool = True
    extra_passes: int = 0

    def of_pass(self, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """The context of one pass with gradient, forward and backward."""
        return contextlib.nullcontext() if is_last and self.in_last_pass else self.quiet()


def backward_in_chunks(
    embed: Callable[[TokenBatch], Tensor],
    batch: TokenBatch,
    chunks: Chunks,
    backward: Callable[[Tensor], Result],
    exchange: Exchange = Exchange(),
) -> Result:
    """Accumulate the gradient of a loss of the batch's embeddings into the encoder's weights.

    Args:
        embed: tokens -> embeddings (n, D), with gradient.
        chunks: the texts that are encoded together, by number; each text is in one chunk.
        backward: takes the embeddings (n, D), in the batch's order, computes the loss and calls its backward.

    Returns:
        What `backward` returned.
    """
    shortest = batch.select(np.array([int(np.argmin(batch.lengths))]))
    earlier = [_WithoutGraph.of(embed, batch.select(chunk)) for chunk in chunks[:-1]]
    extra = [_WithoutGraph.of(embed, shortest) for _ in range(exchange.extra_passes)]
    order = np.concatenate(chunks)
    with exchange.of_pass(is_last=not earlier and not extra):
        last = embed(batch.select(chunks[-1]))
        embeddings = torch.cat([*(each.embeddings for each in earlier), last.detach()])
        leaf = embeddings[torch.from_numpy(np.argsort(order)).to(last.device)].requires_grad_()
        with full_float32():
            result = backward(leaf)
        assert leaf.grad is not None
        gradients = leaf.grad[torch.from_numpy(order).to(last.device)].split([len(chunk) for chunk in chunks])
        torch.autograd.backward(last, gradients[-1].to(last.dtype))
    again = [*earlier, *extra]
    of_again = [*gradients[:-1], *(torch.zeros_like(each.embeddings) for each in extra)]
    with _random_state_kept():
        for place, (each, gradient) in enumerate(zip(again, of_again, strict=True)):
            with exchange.of_pass(is_last=place == len(again) - 1):
                passed = each.pass_again(embed)
                torch.autograd.backward(passed, gradient.to(passed.dtype))
    return result


def backward_at_once(
    embed: Callable[[], Tensor], backward: Callable[[Tensor], Result], exchange: Exchange = Exchange()
) -> Result:
    """Do the same in one pass, `embed()`: the loss and its gradient in full float32, then the model's gradient."""
    with exchange.of_pass(is_last=True):
        embeddings = embed()
        leaf = embeddings.detach().requires_grad_()
        with full_float32():
            result = backward(leaf)
        torch.autograd.backward(embeddings, leaf.grad)
    return result


class _WithoutGraph:
    """A chunk's embeddings without a graph, and what is needed to compute them again with one."""

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
