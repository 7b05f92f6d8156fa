"""Contrastive losses on Euclidean distance.

Distances are taken as ||a - b||^2 / (2 D), D the dimension. For embeddings of unit standard deviation and zero
mean this is 1 - cos, so that temperatures and margins mean what they mean for cosine losses, whatever D.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def scaled_squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """||left_i - right_j||^2 / (2 D) for all pairs.

    left: (n, D) float32; right: (m, D) float32; returns (n, m) float32, never negative.
    """
    # A common shift changes no distance, but without it |a|^2 + |b|^2 - 2ab cancels digits when the mean is large.
    centre = right.detach().mean(dim=0)
    left, right = left - centre, right - centre
    squares = left.square().sum(1)[:, None] + right.square().sum(1)[None, :]
    return torch.addmm(squares, left, right.T, alpha=-2).clamp_min(0) / (2 * left.shape[1])


def infonce(queries: Tensor, positives: Tensor, negatives: Tensor, temperature: Tensor | float) -> Tensor:
    """Mean cross entropy of each query's own positive among all positives and all hard negatives.

    queries, positives: (n, D) float32, row i of one belongs to row i of the other; negatives: (m, D), m may be 0.
    Logits are -||q - p||^2 / (2 D temperature). InfoNCE: arXiv 1807.03748, Eq. 4.
    """
    candidates = torch.cat([positives, negatives])
    logits = -scaled_squared_distances(queries, candidates) / temperature
    return functional.cross_entropy(logits, torch.arange(len(queries), device=queries.device))


def triplet(queries: Tensor, positives: Tensor, negatives: Tensor, margin: float) -> Tensor:
    """Mean of max(0, d(q, p) - d(q, n) + margin), with d = ||.||^2 / (2 D).

    queries, positives, negatives: (n, D) float32, row by row. Triplet loss on squared distances: arXiv 1503.03832,
    Eq. 3.
    """
    to_positive = (queries - positives).square().mean(dim=1) / 2
    to_negative = (queries - negatives).square().mean(dim=1) / 2
    return functional.relu(to_positive - to_negative + margin).mean()
