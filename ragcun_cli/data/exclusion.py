"""Keeping dev and test sets out of the training data: by content, with counts, and recorded.

A training triple goes if its query has the words of one of their queries, or if its positive is one of the passages
that answer these. Other passages of theirs may stay: the corpus of a test set is no secret, its answers are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ragcun_cli import __version__, files
from ragcun_cli.arrays import Flags, Numbers
from ragcun_cli.data.collection import Collection, collections_in, read_folder
from ragcun_cli.data.digests import KEY_BYTES, Keys, keys_of
from ragcun_cli.data.qrels import splits_in
from ragcun_cli.data.sources import dev_collection
from ragcun_cli.data.triples.table import TripleTable
from ragcun_cli.quantities import counted

TRAIN = "train"
TEXTS_AT_A_TIME = 16_384
WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Excluded:
    """What must not be trained on. queries: their words; passages: content keys; sha256: of all collections named."""

    names: tuple[str, ...]
    queries: frozenset[str]
    passages: frozenset[bytes]
    sha256: str

    @classmethod
    def of(cls, collections: Mapping[str, Collection]) -> Excluded:
        """All judged queries of these, and all passages that are relevant to any."""
        queries = {normalised_words(query) for each in collections.values() for query in each.queries}
        passages = {key for each in collections.values() for key in answer_keys(each)}
        digests = "\n".join(sorted(f"{each.split} {each.sha256}" for each in collections.values()))
        return cls(
            tuple(collections), frozenset(queries), frozenset(passages), hashlib.sha256(digests.encode()).hexdigest()
        )

    def has_query(self, query: str) -> bool:
        """Whether this is one of their queries, but for case, punctuation and spaces."""
        return bool(self.queries) and normalised_words(query) in self.queries

    def has_answer(self, key: bytes) -> bool:
        """Whether the passage with this content key answers one of their queries."""
        return key in self.passages

    def provenance(self, counts: ExclusionCounts) -> dict[str, Any]:
        """For the record beside a file."""
        return {"collections": list(self.names), "sha256": self.sha256, **asdict(counts)}


@dataclass(frozen=True)
class ExclusionCounts:
    """Triples left out: all of them, those for their query, and those for their positive."""

    triples: int = 0
    by_query: int = 0
    by_positive: int = 0

    @property
    def sentence(self) -> str:
        """In words."""
        return f"{counted(self.triples, 'triple')} excluded ({self.by_query} by query, {self.by_positive} by positive)"


def read_excluded(sources: Sequence[str], root: Path, asked: str) -> Excluded | None:
    """From names or paths of collections; every split of theirs but `train`. None for no source.

    asked: the key or flag that named them, which an error begins with.

    Raises:
        UsageError, DataError: as finding and reading a collection says.
    """
    if not sources:
        return None
    found: dict[str, Collection] = {}
    for source in sources:
        for name, folder in collections_in(dev_collection(source, root, f"{asked}: ")).items():
            splits = splits_in(folder)
            for split in [each for each in splits if each != TRAIN] or splits:
                label = unused_name(found, f"{name} ({split})", f"{folder} ({split})")
                found[label] = read_folder(folder, name, split, str(folder))
    return Excluded.of(found)


def unused_name(taken: Container[str], name: str, path: str) -> str:
    """What one of several collections is called: two folders may have the same name."""
    return path if name in taken else name


def without(table: TripleTable, excluded: Excluded) -> tuple[TripleTable, ExclusionCounts]:
    """The triples that have nothing of what is excluded, and how many had."""
    by_query = _flags(table, table.queries, lambda texts: [excluded.has_query(text) for text in texts])
    by_positive = _flags(table, table.positives, lambda texts: [excluded.has_answer(key) for key in _keys(texts)])
    leaking = by_query | by_positive
    counts = ExclusionCounts(int(leaking.sum()), int(by_query.sum()), int(by_positive.sum()))
    return (table.select(np.flatnonzero(~leaking)) if counts.triples else table), counts


def write_clean(table: TripleTable, path: Path, source: str, record: dict[str, Any]) -> None:
    """Write triples as JSON Lines, and what was done to them to `<path>.provenance.json`."""
    files.require_writable(provenance_path(path))
    with files.replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for row in range(len(table)):
            negatives, _ = table.negatives_of(np.array([row]))
            content: dict[str, Any] = {
                "query": table.texts[int(table.queries[row])],
                "positive": table.texts[int(table.positives[row])],
            }
            if len(negatives) == 1:
                content["negative"] = table.texts[int(negatives[0])]
            elif len(negatives):
                content["negatives"] = [table.texts[number] for number in negatives.tolist()]
            stream.write(json.dumps(content, ensure_ascii=False) + "\n")
    record = {"ragcun": __version__, "source": source, **record, "sha256": files.sha256_of_file(path)}
    files.write_json(provenance_path(path), record)


def provenance_path(path: Path) -> Path:
    """Where a file of triples says how it was made."""
    return path.with_name(f"{path.name}.provenance.json")


def _flags(table: TripleTable, numbers: Numbers, judge: Callable[[list[str]], list[bool]]) -> Flags:
    """(n,) For each row whether its text is so; each distinct text is judged once."""
    distinct, back = np.unique(numbers, return_inverse=True)
    found = np.zeros(len(distinct), dtype=bool)
    for start in range(0, len(distinct), TEXTS_AT_A_TIME):
        part = distinct[start : start + TEXTS_AT_A_TIME].tolist()
        found[start : start + len(part)] = judge([table.texts[number] for number in part])
    flags: Flags = found[back]
    return flags


def _keys(texts: Sequence[str]) -> Iterable[bytes]:
    joined = keys_of(texts).tobytes()
    return (joined[start : start + KEY_BYTES] for start in range(0, len(joined), KEY_BYTES))


def normalised_words(text: str) -> str:
    """The words in lower case, one space between them; the text itself if it has none."""
    return " ".join(WORD.findall(text.casefold())) or text


def answer_keys(collection: Collection) -> frozenset[bytes]:
    """Content keys of the relevant passages, with their titles and without: pairs are often made of the text alone."""
    rows = relevant_rows(collection)
    return frozenset(
        key.tobytes() for keys in (collection.corpus.keys[rows], untitled_keys(collection, rows)) for key in keys
    )


def untitled_keys(collection: Collection, rows: Numbers) -> Keys:
    """(n, KEY_BYTES) Content keys of these passages' texts without their titles."""
    return keys_of(collection.corpus.texts(rows, titles=False))


def relevant_rows(collection: Collection) -> Numbers:
    """The corpus rows of the passages that are relevant to any query."""
    found = {
        collection.corpus.row_of(passage_id)
        for grades in collection.qrels.values()
        for passage_id, grade in grades.items()
        if grade > 0
    }
    return np.array(sorted(row for row in found if row is not None), dtype=np.int64)
