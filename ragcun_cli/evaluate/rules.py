"""The special rules of BEIR's sets that change a score; for any other collection there are none."""

from __future__ import annotations

# Their queries are passages of the corpus too; a query must not find itself. Elsewhere equal ids are a coincidence
# (FiQA numbers queries and passages separately), so the rule must not be applied there.
QUERIES_IN_CORPUS = frozenset({"arguana", "quora"})

# MS MARCO's `test` is TREC-DL 2019: 43 queries, graded. BEIR's figure is on `dev`.
SCORE_SPLITS = {"msmarco": "dev"}


def drops_identical_ids(dataset: str) -> bool:
    """Whether a passage with the query's own id is not a result."""
    return dataset.lower() in QUERIES_IN_CORPUS


def score_split(dataset: str) -> str | None:
    """The split that is scored by convention; None for the collection's own default."""
    return SCORE_SPLITS.get(dataset.lower())
