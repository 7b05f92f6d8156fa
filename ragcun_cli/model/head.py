"""Projection heads: from pooled features (n, hidden_size) to embeddings (n, output_dim), both float32.

`residual`  skip(c x) + outer(gelu(inner(c x))), where `outer` starts at zero, so training starts from a scaled
            rotation (or random projection) of what the encoder already knows.
`mlp`       two layers, gelu and dropout, all random: the head of this method's earlier implementation.
`none`      the features themselves, for an encoder that is scored untouched.

The scale c makes the embeddings' standard deviation over texts 1 per dimension (root mean square over dimensions):
SIGReg's gradient nearly vanishes at 0.05, that of unit-norm features in 384 dimensions; its target is N(0, I).
For unit-norm features it is known in advance except for their mean's share; training measures it on its texts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

MLP_DROPOUT = 0.1


class ResidualHead(nn.Module):
    """A linear skip plus an MLP whose last layer starts at zero; 1.2 M parameters for 768 -> 512."""

    scale: Tensor

    def __init__(self, hidden_size: int, output_dim: int) -> None:
        super().__init__()
        middle = (hidden_size + output_dim) // 2
        self.skip = nn.Linear(hidden_size, output_dim, bias=False)
        self.inner = nn.Linear(hidden_size, middle)
        self.outer = nn.Linear(middle, output_dim)
        self.register_buffer("scale", torch.ones(()))
        nn.init.orthogonal_(self.skip.weight)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, features: Tensor) -> Tensor:
        scaled = features * self.scale
        return self.skip(scaled) + self.outer(functional.gelu(self.inner(scaled)))

    @torch.no_grad()
    def expect_unit_norm(self) -> None:
        """Set the scale for features of norm 1 and mean 0."""
        self.scale.fill_(math.sqrt(max(self.skip.weight.shape)))

    @torch.no_grad()
    def calibrate(self, features: Tensor) -> None:
        """Set the scale so that the embeddings of `features` have unit standard deviation per dimension.

        `features`: (n, hidden_size) float32 with n >= 2, of typical texts.
        """
        spread = _spread(self.skip(features))
        if spread > 0 and math.isfinite(spread):
            # In another batch or on another machine a text's features differ in the last digits. Four digits are
            # the same everywhere, and so are the arms' initial weights.
            self.scale.fill_(float(f"{1 / spread:.4g}"))


class MlpHead(nn.Sequential):
    """Linear, gelu, dropout, linear, twice as wide in the middle."""

    def __init__(self, hidden_size: int, output_dim: int) -> None:
        super().__init__(
            nn.Linear(hidden_size, 2 * hidden_size),
            nn.GELU(),
            nn.Dropout(MLP_DROPOUT),
            nn.Linear(2 * hidden_size, output_dim),
        )


def build_head(kind: str, hidden_size: int, output_dim: int) -> nn.Module:
    """Build a head of this kind, initialised from torch's global random state."""
    if kind == "residual":
        return ResidualHead(hidden_size, output_dim)
    if kind == "mlp":
        return MlpHead(hidden_size, output_dim)
    if kind == "none":
        return nn.Identity()
    raise ValueError(f"no head of kind {kind!r}")


def _spread(embeddings: Tensor) -> float:
    """Root mean square over dimensions of the standard deviation over texts."""
    return float(embeddings.var(dim=0, unbiased=True).mean().sqrt())
