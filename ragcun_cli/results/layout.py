"""What a folder of results holds, what its files are called, and what decides the figures in them.

<results>/<model>/model.json               `model_entry`: what was scored, and how
                  isotropy.json            the geometry of every dataset's embeddings
                  <dataset>.json           means, rules, versions; written last
                  <dataset>.queries.parquet  `per_query`
                  <dataset>.run.gz         `trec_run`
                  <dataset>.spectrum.tsv   `spectrum`
                  <dataset>.histograms     `histograms`, JSON
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ragcun_cli import files
from ragcun_cli.errors import UsageError

MODEL = "model.json"
ISOTROPY = "isotropy.json"
QUERIES_ENDING, RUN_ENDING = ".queries.parquet", ".run.gz"
SPECTRUM_ENDING, HISTOGRAMS_ENDING = ".spectrum.tsv", ".histograms"
OF_MODEL = (MODEL, ISOTROPY)  # the other files that end in .json are results
OF_DATASET = (".json", QUERIES_ENDING, RUN_ENDING, SPECTRUM_ENDING, HISTOGRAMS_ENDING)
FORMAT = 3  # of a result, and of how its figures are computed
PLAIN_MEAN = "mean of queries"  # how the score of a dataset without parts is computed
MEAN_OF_PARTS = "unweighted mean of parts"


def file_record(folder: Path, dataset: str) -> dict[str, dict[str, Any]]:
    """Return size and sha256 of the files beside a result's JSON: without them the result is incomplete."""
    return {
        path.name: {"bytes": path.stat().st_size, "sha256": files.sha256_of_file(path)}
        for path in (folder / f"{dataset}{ending}" for ending in (QUERIES_ENDING, RUN_ENDING))
    }


def require_name(name: str, asked: str) -> None:
    """Refuse a name that cannot be that of a model's results folder.

    asked: the beginning of the error message.

    Raises:
        UsageError: if the address is not valid.
    """
    shown = name.encode("utf-8", "backslashreplace").decode()
    if not name.strip() or name.startswith(".") or "/" in name or "\\" in name or shown != name:
        raise UsageError(f"{asked}{shown}: not a valid name for a folder of results", "Use letters, digits, - and _.")


def scored_on(dataset: str, split: str, queries: int) -> str:
    """Say what a score was computed on, wherever one is shown."""
    return f"{dataset} ({split}, {queries} {'query' if queries == 1 else 'queries'})"


def ties_sentence(ties: Mapping[str, Any] | None, metric: str, label: str) -> str:
    """Say how a figure depends on the order of equally distant passages; empty if it does not."""
    of_metric = (ties or {}).get("metrics", {}).get(metric)
    if ties is None or of_metric is None:
        return ""
    expected, low, high = (100 * of_metric[kind] for kind in ("expected", "low", "high"))
    count = ties["queries"]
    return (
        f"{count} {'query has' if count == 1 else 'queries have'} equally distant passages of different grades; over "
        f"all orders of these, {label} x 100 is {expected:.2f} on average, from {low:.2f} to {high:.2f}"
    )


def shown_query_ids(part: str, query_ids: Sequence[str], several: bool) -> list[str]:
    """Return one part's query ids as shown. Forums number their queries separately, so the part's name is prefixed."""
    return [f"{part}/{query_id}" for query_id in query_ids] if several else list(query_ids)
