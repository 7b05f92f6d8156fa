"""What a folder of results holds, and how it names things. No torch here: a report reads it."""

from __future__ import annotations

from collections.abc import Sequence

MODEL = "model.json"
ISOTROPY = "isotropy.json"
PLAIN_MEAN = "mean of queries"  # how the score of a dataset without parts is made
MEAN_OF_PARTS = "unweighted mean of parts"


def shown_query_ids(part: str, query_ids: Sequence[str], several: bool) -> list[str]:
    """Of one part of a dataset. Forums number their queries apart, so that a part's name goes before them."""
    return [f"{part}/{query_id}" for query_id in query_ids] if several else list(query_ids)
