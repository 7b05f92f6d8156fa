"""Write queries, passages and qrels as files in BEIR's layout: the one writer of every collection."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QRELS_HEADER = "query-id\tcorpus-id\tscore\n"


@dataclass(frozen=True)
class Written:
    """Numbers of records written."""

    passages: int
    queries: int
    judgements: int


def passage_record(identity: str, text: str, title: str = "", **more: Any) -> dict[str, Any]:
    """Return a record for corpus.jsonl. more: extra keys, which nothing reads."""
    return {"_id": identity, "title": title, "text": text, **more}


def write_beir_layout(
    folder: Path,
    split: str,
    passages: Iterable[dict[str, Any]],
    queries: Iterable[tuple[str, str]],
    judgements: Iterable[tuple[str, str, int]],
) -> Written:
    """Write corpus.jsonl, queries.jsonl and qrels/<split>.tsv in sequence, so the inputs may be lazy.

    passages: `passage_record`s. queries: id and text. judgements: query id, passage id and grade.
    """
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    return Written(
        _write_lines(folder / "corpus.jsonl", passages),
        _write_lines(folder / "queries.jsonl", ({"_id": identity, "text": text} for identity, text in queries)),
        _write_qrels(folder / "qrels" / f"{split}.tsv", judgements),
    )


def _write_lines(path: Path, records: Iterable[dict[str, Any]]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as stream:
        for record in records:
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    return count


def _write_qrels(path: Path, judgements: Iterable[tuple[str, str, int]]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as stream:
        stream.write(QRELS_HEADER)
        for query, passage, grade in judgements:
            stream.write(f"{query}\t{passage}\t{grade}\n")
            count += 1
    return count
