"""Keep dev and test sets out of the training data by content, and record how much was removed.

A training triple is removed if its query has the same words as a dev or test query, or if its positive is a passage
that answers one. Other passages may stay: the corpus of a test set is not secret, but its answers are.
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
    """What must not be trained on. queries: their words; passages: content keys; sha256: of all collections."""

    names: tuple[str, ...]
    queries: frozenset[str]
    passages: frozenset[bytes]
    sha256: str

    @classmethod
    def of(cls, collections: Mapping[str, Collection]) -> Excluded:
        """Exclude all judged queries of these collections and all relevant passages."""
        queries = {normalised_words(query) for each in collections.values() for query in each.queries}
        passages = {key for each in collections.values() for key in answer_keys(each)}
        digests = "\n".join(sorted(f"{each.split} {each.sha256}" for each in collections.values()))
        return cls(
            tuple(collections), frozenset(queries), frozenset(passages), hashlib.sha256(digests.encode()).hexdigest()
        )

    def has_query(self, query: str) -> bool:
        """Return whether this is an excluded query, ignoring case, punctuation and spaces."""
        return bool(self.queries) and normalised_words(query) in self.queries

    def has_answer(self, key: bytes) -> bool:
        """Return whether the passage with this content key answers an excluded query."""
        return key in self.passages

    def provenance(self, counts: ExclusionCounts) -> dict[str, Any]:
        """Return the entry for a file's provenance record."""
        return {"collections": list(self.names), "sha256": self.sha256, **asdict(counts)}


@dataclass(frozen=True)
class ExclusionCounts:
    """Numbers of triples left out: in total, because of the query, and because of the positive."""

    triples: int = 0
    by_query: int = 0
    by_positive: int = 0

    @property
    def sentence(self) -> str:
        """The counts in words."""
        return f"{counted(self.triples, 'triple')} excluded ({self.by_query} by query, {self.by_positive} by positive)"


def read_excluded(sources: Sequence[str], root: Path, asked: str) -> Excluded | None:
    """Read what to exclude: every split except `train` of the named collections. Return None without sources.

    asked: the recipe key or flag that named them; errors start with it.

    Raises:
        UsageError, DataError: if a collection cannot be found or read.
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
    """Return a name for one of several collections; if the name is taken, its path."""
    return path if name in taken else name


def without(table: TripleTable, excluded: Excluded) -> tuple[TripleTable, ExclusionCounts]:
    """Return the triples without excluded content, and the counts of those removed."""
    by_query = _flags(table, table.queries, lambda texts: [excluded.has_query(text) for text in texts])
    by_positive = _flags(table, table.positives, lambda texts: [excluded.has_answer(key) for key in _keys(texts)])
    leaking = by_query | by_positive
    counts = ExclusionCounts(int(leaking.sum()), int(by_query.sum()), int(by_positive.sum()))
    return (table.select(np.flatnonzero(~leaking)) if counts.triples else table), counts


def write_clean(table: TripleTable, path: Path, source: str, record: dict[str, Any]) -> None:
    """Write triples as JSON Lines, and their provenance to `<path>.provenance.json`."""
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
    """Return the path of the provenance record of a file of triples."""
    return path.with_name(f"{path.name}.provenance.json")


def _flags(table: TripleTable, numbers: Numbers, judge: Callable[[list[str]], list[bool]]) -> Flags:
    """Apply `judge` to each row's text, (n,); each distinct text is judged once."""
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
    """Return the lower-case words joined by single spaces, or the text itself if it has no words."""
    return " ".join(WORD.findall(text.casefold())) or text


def answer_keys(collection: Collection) -> frozenset[bytes]:
    """Return content keys of relevant passages, with and without titles, because pairs often use only the text."""
    rows = relevant_rows(collection)
    return frozenset(
        key.tobytes() for keys in (collection.corpus.keys[rows], untitled_keys(collection, rows)) for key in keys
    )


def untitled_keys(collection: Collection, rows: Numbers) -> Keys:
    """Return content keys of these passages' texts without titles, (n, KEY_BYTES)."""
    return keys_of(collection.corpus.texts(rows, titles=False))


def relevant_rows(collection: Collection) -> Numbers:
    """Return the corpus rows of passages that are relevant to any query."""
    found = {
        collection.corpus.row_of(passage_id)
        for grades in collection.qrels.values()
        for passage_id, grade in grades.items()
        if grade > 0
    }
    return np.array(sorted(row for row in found if row is not None), dtype=np.int64)
