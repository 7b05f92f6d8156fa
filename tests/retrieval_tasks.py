"""Small retrieval tasks on disk, and their embeddings without an encoder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ragcun_cli.data.collection import Collection
from ragcun_cli.evaluate.embedding import Embedded
from ragcun_cli.evaluate.vectors import PassageVectors

Qrels = dict[str, dict[str, int]]
Encode = Callable[[Sequence[str]], np.ndarray]


def write_task(
    folder: Path, passages: dict[str, str], queries: dict[str, str], qrels: Qrels, split: str = "test"
) -> Path:
    """A collection in BEIR's layout: id -> text, and query id -> passage id -> grade."""
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", passages), ("queries", queries)):
        lines = [json.dumps({"_id": identity, "text": text}) for identity, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = [f"{query}\t{passage}\t{grade}" for query, grades in qrels.items() for passage, grade in grades.items()]
    content = "\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n"
    (folder / "qrels" / f"{split}.tsv").write_text(content, encoding="utf-8")
    return folder


def numbered(vectors: np.ndarray) -> Encode:
    """An encoder whose texts are the vectors' numbers."""
    return lambda texts: vectors[[int(text) for text in texts]].astype(np.float32)


def embedded_by(encode: Encode, collection: Collection) -> Embedded:
    """What an encoder's store would hold."""
    return Embedded(PassageVectors.of_array(encode(collection.corpus.texts())), encode(collection.queries))
