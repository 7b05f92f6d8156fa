"""Results on disk: `results/<model>/<dataset>.json` with its per-query scores, run and isotropy beside it."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ragcun_cli import files
from ragcun_cli.data.collection import Collection
from ragcun_cli.environment import command_line, versions
from ragcun_cli.errors import UsageError
from ragcun_cli.evaluate.rules import drops_identical_ids
from ragcun_cli.evaluate.scoring import RANKING_DEPTH, Evaluation

FORMAT = 1
MODEL = "model.json"
ISOTROPY = "isotropy.json"
RESERVED_NAMES = frozenset({MODEL, ISOTROPY})
IDENTIFYING = ("identity", "max_length", "output_dim")


def check_results_folder(root: Path, model: dict[str, Any], collections: Sequence[Collection], overwrite: bool) -> Path:
    """The folder for this model's results; changes nothing.

    Raises:
        UsageError: if it holds results of other weights, or of other texts by the same name, unless they are to be
            overwritten: a row of the table must never mix two models, nor a column two collections.
    """
    folder = root / str(model["name"])
    recorded = _read_json(folder / MODEL)
    if folder.is_dir() and any(folder.iterdir()) and recorded is None:
        raise UsageError(f"{folder}: this folder is not one of ragcun's results", "Choose another --results or --name.")
    same = recorded is not None and all(recorded.get(key) == model[key] for key in IDENTIFYING)
    if recorded is not None and not same:
        if not overwrite:
            raise UsageError(
                f"{folder}: holds results of another model of this name ({str(recorded.get('identity'))[:19]}…, "
                f"{recorded.get('max_length')} tokens)",
                "Give --overwrite to replace them, or --name to keep both.",
            )
        return folder
    for collection in collections:
        dataset = (_read_json(folder / f"{collection.name}.json") or {}).get("dataset", {})
        ours = (collection.split, collection.sha256)
        if dataset and (dataset.get("split"), dataset.get("sha256")) != ours and not overwrite:
            raise UsageError(
                f"{folder / collection.name}.json: is a result on other texts or judgements of this name "
                f"(split {dataset.get('split')})",
                "Give --overwrite to replace it, or another --results to keep both.",
            )
    return folder


def claim_results_folder(folder: Path, model: dict[str, Any]) -> None:
    """Make the folder this model's, dropping the results of another model."""
    recorded = _read_json(folder / MODEL)
    if recorded is not None and any(recorded.get(key) != model[key] for key in IDENTIFYING):
        shutil.rmtree(folder)
    files.write_json(folder / MODEL, model)


def write_results(
    folder: Path, model: dict[str, Any], collection: Collection, evaluation: Evaluation
) -> dict[str, Any]:
    """Write all files of one dataset; the JSON comes last, so that it is there only when the others are."""
    name = collection.name
    files.write_bytes(folder / f"{name}.queries.tsv.gz", _gzip(_per_query_lines(evaluation)))
    files.write_bytes(folder / f"{name}.run.gz", _gzip(_run_lines(evaluation, str(model["name"]))))
    isotropy = asdict(evaluation.isotropy) if evaluation.isotropy is not None else None
    if isotropy is not None:
        measured = _read_json(folder / ISOTROPY) or {}
        measured[name] = {"of": "passages", **isotropy}
        files.write_json(folder / ISOTROPY, dict(sorted(measured.items())))
    result = {
        "format": FORMAT,
        "dataset": {
            "name": name,
            "split": collection.split,
            "sha256": collection.sha256,
            "passages": len(collection.passages),
            "empty_passages": sum(1 for passage in collection.passages if not passage),
            "queries": len(collection.queries),
            "judgements": sum(map(len, collection.qrels.values())),
            "judgements_of_unknown_passages": collection.unknown_judgements,
        },
        "model": model,
        "rules": {
            "text": '(title + " " + text).strip()',
            "similarity": "euclidean",
            "search": "exact",
            "depth": RANKING_DEPTH,
            "identical_ids_dropped": drops_identical_ids(name),
            "ndcg_gain": "linear",
            "queries_without_results": "score 0",
        },
        "precision": "float32",
        "metrics": evaluation.metrics,
        "isotropy": isotropy,
        "versions": versions(),
        "command": command_line(),
    }
    files.write_json(folder / f"{name}.json", result)
    return result


def _per_query_lines(evaluation: Evaluation) -> Iterable[str]:
    metrics = list(evaluation.per_query)
    yield "\t".join(["query-id", *metrics])
    for query_id in evaluation.rankings:
        yield "\t".join([query_id, *(f"{evaluation.per_query[metric][query_id]:.6f}" for metric in metrics)])


def _run_lines(evaluation: Evaluation, tag: str) -> Iterable[str]:
    """TREC's run format. Scores count down by rank: trec_eval's float32 would mix up near distances."""
    tag = "_".join(tag.split())  # the format's columns are separated by blanks
    for query_id, ranked in evaluation.rankings.items():
        for rank, passage_id in enumerate(ranked, start=1):
            yield f"{query_id} Q0 {passage_id} {rank} {len(ranked) - rank + 1} {tag}"


def _gzip(lines: Iterable[str]) -> bytes:
    text = "".join(line + "\n" for line in lines)
    return gzip.compress(text.encode("utf-8"), compresslevel=5, mtime=0)  # no time stamp: same results, same bytes


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
