"""The texts behind a result, where they still are."""

from __future__ import annotations

from pathlib import Path

from ragcun_cli.errors import RagcunError
from ragcun_cli.evaluate.datasets import Dataset, find_datasets
from ragcun_cli.results.dataset_result import DatasetResult


def find_texts(result: DatasetResult, data_dir: Path) -> Dataset | None:
    """The dataset, by its name in the data folder or where it was when it was scored; None if neither has the very
    texts and judgements.
    """
    for name in (result.name, result.dataset.path or result.name):
        try:
            found, _ = find_datasets([name], data_dir, result.split)
        except RagcunError:
            continue
        if found and found[0].sha256 == result.sha256:
            return found[0]
    return None
