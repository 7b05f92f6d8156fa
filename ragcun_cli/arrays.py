"""The arrays that pass between parts, by what they hold."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]  # embeddings, (n, D)
Figures = npt.NDArray[np.float64]  # scores, distances, what is computed from them
Numbers = npt.NDArray[np.int64]  # of rows, texts, passages, queries; counts
Flags = npt.NDArray[np.bool_]
