"""SIGReg without slices: the mean over all directions and the exact integral over t.

For the weight exp(-t^2 / 2) Epps and Pulley's integral is a sum over pairs (it is a squared maximum mean
discrepancy with a Gaussian kernel), and the mean over directions of exp(-(a . v)^2 / 2) depends on |v|^2 alone:

    T = N [ sqrt(2 pi) mean_nm k(|z_n - z_m|^2 / D) - 2 sqrt(pi) mean_n k(|z_n|^2 / (2 D)) + sqrt(2 pi / 3) ]
    k(x) = E_a exp(-x D a_1^2 / 2) = 1F1(1/2; D/2; -x D / 2)

the limit of LeJEPA's statistic (arXiv 2511.08544, Eq. 7) for infinitely many slices and points over all t;
KerJEPA (arXiv 2512.19605) derives the same limit. It needs the distances that the contrastive loss computes anyway.

On N(0, I) its expected value is sqrt(2 pi) - sqrt(2 pi / 3) = 1.0594, whatever N and D; 0 with `debias`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

NULL_VALUE = math.sqrt(2 * math.pi) - math.sqrt(2 * math.pi / 3)


def sigreg_exact(squared_distances: Tensor, squared_norms: Tensor, dimensions: int, debias: bool = False) -> Tensor:
    """The slice-free statistic, a scalar.

    squared_distances: (N, N) float32 among one view's embeddings, whose diagonal is not read;
    squared_norms: (N,); dimensions: D >= 16.
    """
    count = len(squared_norms)
    # Sums in float64: N times the small difference of three numbers would lose float32's digits.
    pairs = _PairSum.apply(squared_distances, dimensions)
    # A text's distance to itself is 0, and k(0) = 1.
    mean_of_pairs = pairs / (count * (count - 1)) if debias else (pairs + count) / count**2
    to_normal = _kernel(squared_norms / (2 * dimensions), dimensions).mean(dtype=_wide(squared_norms))
    statistic = count * (
        math.sqrt(2 * math.pi) * mean_of_pairs - 2 * math.sqrt(math.pi) * to_normal + math.sqrt(2 * math.pi / 3)
    )
    return statistic.to(squared_distances.dtype)


def _wide(values: Tensor) -> torch.dtype:
    return torch.float32 if values.device.type == "mps" else torch.float64  # an Apple GPU has no float64


def _kernel(x: Tensor, dimensions: int) -> Tensor:
    """1F1(1/2; D/2; -x D / 2), expanded in 1 / D; relative error at D = 512: 1e-9, at D = 16: 3e-5."""
    root = torch.rsqrt(1 + x)
    return root * _correction(x * root.square(), dimensions)


def _correction(y: Tensor, dimensions: int) -> Tensor:
    """1 - 3/4 y^2 / D + (3/2 y^2 - 5 y^3 + 105/32 y^4) / D^2, with y = x / (1 + x)."""
    inner = (y * (105 / 32 / dimensions**2)).sub_(5 / dimensions**2)
    inner.mul_(y).add_(1.5 / dimensions**2 - 0.75 / dimensions)
    return inner.mul_(y).mul_(y).add_(1)


class _PairSum(torch.autograd.Function):
    """The sum of k over all pairs of different texts, float64, from squared distances (N, N).

    Value and derivative come from the same few passes over the matrix; left to autograd, it would take a dozen.
    """

    @staticmethod
    def forward(ctx: Any, squared_distances: Tensor, dimensions: int) -> Tensor:
        x = squared_distances / dimensions
        root = (x + 1).rsqrt_()
        root_square = root.square()
        y = x.mul_(root_square)
        correction = _correction(y, dimensions)
        kernel = root * correction
        # dk/dx = -1/2 root^3 correction + root^5 correction'(y), because dy/dx = root^4.
        slope = (y * (105 / 8 / dimensions**2)).sub_(15 / dimensions**2)
        slope.mul_(y).add_(3 / dimensions**2 - 1.5 / dimensions).mul_(y)
        derivative = slope.mul_(root_square).sub_(correction.mul_(0.5)).mul_(root_square).mul_(root)
        derivative.fill_diagonal_(0)
        ctx.save_for_backward(derivative)
        ctx.dimensions = dimensions
        # Row by row in float32, where torch sums pairwise; one float64 pass over the matrix takes three times as long.
        return kernel.fill_diagonal_(0).sum(1).sum(dtype=_wide(kernel))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (derivative,) = ctx.saved_tensors
        return derivative * (gradient / ctx.dimensions).to(derivative.dtype), None
