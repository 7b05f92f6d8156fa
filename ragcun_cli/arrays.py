"""Type aliases for the arrays that modules exchange, named after what they hold."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]  # embeddings, (n, D)
Figures = npt.NDArray[np.float64]  # scores, distances and values computed from them
Numbers = npt.NDArray[np.int64]  # indices of rows, texts, passages or queries; counts
Flags = npt.NDArray[np.bool_]
