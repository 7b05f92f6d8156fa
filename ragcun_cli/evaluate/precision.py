"""The precision of the search's matrix product, and how wrong it can be.

Every device uses float32. TensorFloat-32 is several times as fast on a GPU, but rounds inputs to 11 bits; at a depth
of 1,000 the distances of candidates lie closer together than that error: of 48 queries against 200,000 random
passages none could be answered with certainty, so each was searched again, block by block on the CPU. bfloat16's error
is four times TensorFloat-32's. Both stay for comparison, and because their errors test the second search.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ragcun_cli.arrays import Figures

UNIT = 2.0**-24  # of float32: the relative error of one rounding


@dataclass(frozen=True)
class Precision:
    """A precision by name. input_unit: the relative error of rounding an input, 0 where inputs stay float32."""

    name: str
    input_unit: float

    @classmethod
    def float32(cls) -> Precision:
        """Return float32, the precision of the embeddings."""
        return cls("float32", 0.0)

    @classmethod
    def tf32(cls) -> Precision:
        """Return TF32: tensor cores on float32 inputs. Hardware may truncate: one bit more is allowed."""
        return cls("tf32", 2.0**-10)

    @classmethod
    def bfloat16(cls) -> Precision:
        """Return bfloat16: inputs rounded to 8 bits."""
        return cls("bfloat16", 2.0**-8)

    def prepare(self, vectors: Tensor) -> Tensor:
        """Return the vectors, (n, D), as the product takes them."""
        # Kept as float32: a product of bfloat16 tensors would round its result to bfloat16 too.
        return vectors.bfloat16().float() if self.name == "bfloat16" else vectors

    def product(self, norms: Tensor, queries: Tensor, passages: Tensor, out: Tensor | None = None) -> Tensor:
        """|p|^2 - 2 q.p, (n, m) float32: |q|^2 is the same for all passages of a query and changes no order."""
        with self._matrix_products():
            return torch.addmm(norms[None, :], queries, passages.T, alpha=-2, out=out)

    def error(self, query_norm: Figures, passage_norm: Figures, dimensions: int) -> Figures:
        """Return how far `product` + |q|^2 can be from the squared distance of the vectors before centring.

        Summing D products in any order errs by at most D u |q||p| (Higham, Accuracy and Stability, section 3.1);
        rounded inputs add (2v + v^2) |q||p|; |p|^2 errs by D u |p|^2; centring rounds each side once.
        """
        both = (query_norm + passage_norm) ** 2
        rounding = (2 * self.input_unit + self.input_unit**2) * 2 * query_norm * passage_norm
        return np.asarray(rounding + (2 * (dimensions + 2) + 8) * UNIT * both)

    @contextlib.contextmanager
    def _matrix_products(self) -> Iterator[None]:
        # On every device: a training run's setting would let a CPU with AMX round float32 inputs too.
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if self.name == "tf32" else "highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
