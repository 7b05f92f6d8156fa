"""Contrastive losses on Euclidean distance.

Distances are taken as ||a - b||^2 / (2 D), D the dimension. For embeddings of unit standard deviation and zero
mean this is 1 - cos, so that temperatures and margins mean what they mean for cosine losses, whatever D.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """||left_i - right_j||^2 for all pairs.

    left: (n, D) float32; right: (m, D) float32; returns (n, m) float32, never negative.
    """
    # A common shift changes no distance, but without it |a|^2 + |b|^2 - 2ab cancels digits when the mean is large.
    centre = right.detach().mean(dim=0)
    left, right = left - centre, right - centre
    squares = left.square().sum(1)[:, None] + right.square().sum(1)[None, :]
    return torch.addmm(squares, left, right.T, alpha=-2).clamp_min(0)


class _OwnDistances(torch.autograd.Function):
    """Squared distances within one sample, whose gradient takes one matrix product instead of two."""

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor) -> Tensor:
        centred = embeddings - embeddings.mean(dim=0)
        squares = centred.square().sum(1)
        ctx.save_for_backward(centred)
        distances = torch.addmm(squares[:, None] + squares[None, :], centred, centred.T, alpha=-2).clamp_min_(0)
        return distances.fill_diagonal_(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (centred,) = ctx.saved_tensors
        return torch.addmm(gradient.sum(1, keepdim=True) * centred, gradient, centred, alpha=-1).mul_(4)


def own_squared_distances(embeddings: Tensor) -> Tensor:
    """||e_i - e_j||^2 for all pairs of one sample, (n, n) float32; exactly 0 on the diagonal.

    For functions that treat a pair and its reverse alike: the incoming gradient is assumed to be symmetric.
    """
    distances: Tensor = _OwnDistances.apply(embeddings)
    return distances


def infonce(
    distances: Tensor, dimensions: int, temperature: Tensor | float, false_negatives: Tensor | None = None
) -> Tensor:
    """Mean cross entropy of each query's own passage among all passages, a scalar.

    distances: (n, m) float32, squared, from query i to passage j; passage i is query i's own, m >= n.
    false_negatives: (n, m) bool, pairs that are left out, or None. Logits are -distance / (2 D temperature).
    InfoNCE: arXiv 1807.03748, Eq. 4.
    """
    logits = -distances / (2 * dimensions) / temperature
    if false_negatives is not None:
        logits = logits.masked_fill(false_negatives, float("-inf"))
    return functional.cross_entropy(logits, torch.arange(len(distances), device=distances.device))


def equal_to_own_positive(positive_ids: Tensor, passage_ids: Tensor) -> Tensor:
    """Mark the passages that are copies of a query's own positive: (n, m) bool.

    positive_ids: (n,) content ids of the queries' positives; passage_ids: (m,) of all passages, of which the first
    n are the positives themselves. As negatives, copies would teach that the right answer is wrong.
    """
    equal = positive_ids[:, None] == passage_ids[None, :]
    own = torch.arange(len(positive_ids), device=equal.device)
    equal[own, own] = False
    return equal


def triplet(queries: Tensor, positives: Tensor, negatives: Tensor, margin: float) -> Tensor:
    """Mean of max(0, d(q, p) - d(q, n) + margin), with d = ||.||^2 / (2 D).

    queries, positives, negatives: (n, D) float32, row by row. Triplet loss on squared distances: arXiv 1503.03832,
    Eq. 3.
    """
    to_positive = (queries - positives).square().mean(dim=1) / 2
    to_negative = (queries - negatives).square().mean(dim=1) / 2
    return functional.relu(to_positive - to_negative + margin).mean()
