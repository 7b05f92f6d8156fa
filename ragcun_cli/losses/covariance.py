"""Terms on the covariance S of one view's embeddings, through its N x N Gram matrix: no D x D matrix is made."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

VICREG_COVARIANCE_WEIGHT = 1 / 25  # the paper's nu / mu (Section 4.2)
VICREG_EPSILON = 1e-4


def covariance_to_identity(embeddings: Tensor) -> Tensor:
    """An unbiased estimate of ||S - I||_F^2 / D, a scalar; may be slightly below 0 by chance on N(0, I).

    embeddings: (N, D) float32 with N >= 4. tr(S^2) as U-statistic: Chen, Zhang & Zhong (JASA 2010), in the closed
    form of Himeno & Yamada (2014). Aims at the identity as Weak-SIGReg, whose term is biased and sees a random sketch.
    """
    count, dimensions = embeddings.shape
    gram = _centred_gram(embeddings)
    norms = gram.diagonal()
    trace = norms.sum() / (count - 1)
    frobenius = gram.square().sum() / (count - 1) ** 2
    fourth = norms.square().sum() / (count - 1)
    factor = (count - 1) / (count * (count - 2) * (count - 3))
    trace_of_square = factor * ((count - 1) * (count - 2) * frobenius + trace.square() - count * fourth)
    return (trace_of_square - 2 * trace + dimensions) / dimensions


def vicreg(embeddings: Tensor) -> Tensor:
    """VICReg's variance and covariance terms, v + c / 25 (arXiv 2105.04906, Eq. 1 and 4), a scalar.

    v = mean_j max(0, 1 - sqrt(S_jj + 1e-4)), c = sum_{i != j} S_ij^2 / D. embeddings: (N, D) float32, N >= 2.
    """
    count, dimensions = embeddings.shape
    variances = embeddings.var(dim=0, unbiased=True)
    hinge = functional.relu(1 - (variances + VICREG_EPSILON).sqrt()).mean()
    # ||S||_F^2 is the same from the Gram matrix; without the diagonal of S only the covariances are left.
    all_squares = _centred_gram(embeddings).square().sum() / (count - 1) ** 2
    covariances = (all_squares - variances.square().sum()) / dimensions
    return hinge + VICREG_COVARIANCE_WEIGHT * covariances


def _centred_gram(embeddings: Tensor) -> Tensor:
    centred = embeddings - embeddings.mean(dim=0)
    return torch.mm(centred, centred.T)
