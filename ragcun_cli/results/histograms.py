"""<dataset>.histograms: how close queries are to relevant and other passages, and how long embeddings are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ragcun_cli import files
from ragcun_cli.arrays import Figures, Numbers, Vectors
from ragcun_cli.errors import DataError

PAIRS = 50_000  # at most, of each kind
SEED = 0
COSINES = np.linspace(-1, 1, 101)
# Lengths are divided by the root mean square over passages: models then differ in their spread, and parts of
# a dataset can be added up. Longer ones count in the last bin.
LENGTHS = np.linspace(0, 2, 101)


@dataclass(frozen=True)
class Histograms:
    """Counts in the bins of COSINES and LENGTHS, each (100,).

    positives: cosines of a query and a passage relevant to it. random: of the same queries and passages drawn at
    random. passages, queries: lengths. mean_square_length: of passages, before the division.
    """

    positives: Numbers
    random: Numbers
    passages: Numbers
    queries: Numbers
    mean_square_length: float

    def entry(self) -> dict[str, Any]:
        """Return the histograms as JSON content."""
        return {
            "cosine": {
                "edges": [round(float(edge), 4) for edge in COSINES],
                "positives": self.positives.tolist(),
                "random": self.random.tolist(),
            },
            "length": {
                "edges": [round(float(edge), 4) for edge in LENGTHS],
                "passages": self.passages.tolist(),
                "queries": self.queries.tolist(),
                "mean_square": self.mean_square_length,
            },
        }


def write_histograms(path: Path, histograms: Histograms) -> None:
    """Write the histograms as JSON."""
    files.write_text(path, json.dumps(histograms.entry()) + "\n")


def read_histograms(path: Path) -> Histograms:
    """Read the histograms of a dataset.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        cosine, length = content["cosine"], content["length"]
        listed = (cosine["positives"], cosine["random"], length["passages"], length["queries"])
        positives, random, passages, queries = (np.array(each, dtype=np.int64) for each in listed)
        return Histograms(positives, random, passages, queries, float(length["mean_square"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: the histograms cannot be read ({error!r})", "Evaluate again.") from None


def measure_histograms(
    queries: Vectors, passages: Vectors, pair_queries: Numbers, pair_passages: Vectors
) -> Histograms:
    """Count the cosines and lengths of embeddings.

    Args:
        queries, passages: (n, D) and (m, D), as searched, but not divided by length for the cosine.
        pair_queries: (pairs,) numbers of queries; pair_passages: (pairs, D), each relevant to the query beside it.
    """
    generator = np.random.default_rng(SEED)
    if len(pair_queries) > PAIRS:
        some = np.sort(generator.choice(len(pair_queries), PAIRS, replace=False))
        pair_queries, pair_passages = pair_queries[some], pair_passages[some]
    others = passages[generator.integers(len(passages), size=len(pair_queries))]
    asked = queries[pair_queries]
    lengths, query_lengths = (np.linalg.norm(each.astype(np.float64), axis=1) for each in (passages, queries))
    mean_square = float((lengths**2).mean())
    scale = np.sqrt(mean_square) or 1.0
    return Histograms(
        positives=_counted(_cosines(asked, pair_passages), COSINES),
        random=_counted(_cosines(asked, others), COSINES),
        passages=_counted(lengths / scale, LENGTHS),
        queries=_counted(query_lengths / scale, LENGTHS),
        mean_square_length=mean_square,
    )


def added_histograms(parts: Sequence[Histograms]) -> Histograms:
    """Add up the histograms of the parts of one dataset."""
    return Histograms(
        positives=np.sum([part.positives for part in parts], axis=0),
        random=np.sum([part.random for part in parts], axis=0),
        passages=np.sum([part.passages for part in parts], axis=0),
        queries=np.sum([part.queries for part in parts], axis=0),
        mean_square_length=float(np.mean([part.mean_square_length for part in parts])),
    )


def _cosines(one: Vectors, other: Vectors) -> Figures:
    above = np.einsum("ij,ij->i", one, other, dtype=np.float64)
    below = np.linalg.norm(one.astype(np.float64), axis=1) * np.linalg.norm(other.astype(np.float64), axis=1)
    return np.divide(above, below, out=np.zeros(len(above)), where=below > 0)


def _counted(values: Figures, edges: Figures) -> Numbers:
    return np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges)[0].astype(np.int64)
