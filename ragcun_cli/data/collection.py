"""Collections in BEIR's layout: corpus.jsonl, queries.jsonl and qrels/<split>.tsv in a folder."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection as SomeOf
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ragcun_cli.data.cache import cache_folder
from ragcun_cli.data.corpus import Corpus, identity_of, open_corpus
from ragcun_cli.data.lines import json_lines, listed, text_of
from ragcun_cli.data.naming import name_of
from ragcun_cli.data.qrels import FOLDER, qrels_lines, qrels_path, splits_in
from ragcun_cli.data.registry import known_dataset
from ragcun_cli.data.unpacked import unpack, unpacked_file
from ragcun_cli.errors import DataError, UsageError
from ragcun_cli.files import sha256_of_file

CORPUS = "corpus.jsonl"
QUERIES = "queries.jsonl"
LAYOUT = "docs/your-own.md explains BEIR's layout."
OTHER_FILES = "Check that these files belong together, or unpack or download the collection again."
HANDFUL = 5  # judgements of missing passages that are tolerated, as long as each is named

Qrels = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Collection:
    """A retrieval task: passages, the queries that are judged in one split, and their judgements.

    `qrels[query id][passage id]` is the grade. `sha256` covers all three files. `unknown_judgements` counts judgements
    of passages missing from the corpus; unknown_passages names the first few. qrels_path: where judgements are
    read from; qrels_label: its name in errors.
    """

    name: str
    split: str
    corpus: Corpus
    query_ids: list[str]
    queries: list[str]
    qrels: Qrels
    sha256: str
    unknown_judgements: int
    unknown_passages: tuple[str, ...]
    qrels_path: Path
    qrels_label: str

    @property
    def judgements(self) -> int:
        """Number of judgements, including those of unknown passages."""
        return sum(map(len, self.qrels.values()))

    @property
    def queries_without_relevant(self) -> int:
        """Number of queries whose judgements are all 0 or less; they always score 0."""
        return sum(max(grades.values()) <= 0 for grades in self.qrels.values())

    def texts(self) -> list[str]:
        """Return each distinct passage and query, for collections that fit into memory."""
        return list(dict.fromkeys([*self.corpus.texts(), *self.queries]))


def read_collection(path: Path, split: str | None = None, preferred: Sequence[str] = ("test",)) -> Collection:
    """Read a collection; its passages stay on disk.

    Args:
        path: a folder or a zip in BEIR's layout.
        split: the name of a file in qrels/ (default: the first of `preferred` that exists, or the only split).

    Raises:
        UsageError: if the path or the split does not exist.
        DataError: naming the file and line of a problem.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such collection", "Give a folder or a zip in BEIR's layout.")
    folder = path if path.is_dir() else unpack(path, cache_folder())
    return read_folder(folder, name_of(path), split, str(path), preferred)


def read_folder(
    folder: Path, name: str, split: str | None, label: str, preferred: Sequence[str] = ("test",)
) -> Collection:
    """Read a collection from a folder, under any name; errors call it `label`."""
    for needed in (CORPUS, QUERIES):
        if not is_there(folder, needed):
            _refuse(folder, label, needed)
    split = _choose_split(folder, label, split, preferred)
    path, corpus_path, queries_path = qrels_path(folder, split), *_files(folder)
    qrels_label = f"{label}/qrels/{path.name}"
    qrels = _read_qrels(path, qrels_label)
    queries = _read_queries(queries_path, f"{label}/{QUERIES}", qrels)
    corpus = open_corpus(corpus_path, cache_folder(), f"{label}/{CORPUS}")
    if lost := qrels.keys() - queries.keys():
        asked = _query_ids(queries_path)
        raise DataError(_lost(path, qrels_label, lost, set(), asked, corpus, QUERIES), OTHER_FILES)
    judged = {passage_id for grades in qrels.values() for passage_id in grades}
    unknown = {passage_id for passage_id in judged if corpus.row_of(passage_id) is None}
    count = sum(passage_id in unknown for grades in qrels.values() for passage_id in grades)
    known = known_dataset(name.split("/")[0])
    # Licensed sets lose passages over time, such as Signal-1M's deleted tweets.
    loses_passages = known is not None and known.md5 is None
    if len(unknown) == len(judged) or (count > HANDFUL and not loses_passages):
        raise DataError(_lost(path, qrels_label, set(), unknown, queries, corpus, CORPUS), OTHER_FILES)
    digests = (corpus.facts.sha256, sha256_of_file(queries_path), sha256_of_file(path))
    return Collection(
        name=name,
        split=split,
        corpus=corpus,
        query_ids=list(qrels),
        queries=[queries[query_id] for query_id in qrels],
        qrels=qrels,
        sha256=hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        unknown_judgements=count,
        unknown_passages=tuple(sorted(unknown)[:HANDFUL]),
        qrels_path=path,
        qrels_label=qrels_label,
    )


def collections_in(path: Path) -> dict[str, Path]:
    """Map name to folder for the collection in a folder or zip, or for each of CQADupStack's forums.

    Raises:
        UsageError: if there is none.
    """
    folder = path if path.is_dir() else unpack(path, cache_folder())
    name = name_of(path)
    if is_there(folder, CORPUS):
        return {name: folder}
    parts = {f"{name}/{part.name}": part for part in sorted(folder.iterdir()) if is_there(part, CORPUS)}
    if not parts:
        raise UsageError(f"{path}: not a collection in BEIR's layout: {CORPUS} is missing", LAYOUT)
    return parts


def is_there(folder: Path, name: str) -> bool:
    """Return whether a collection has this file, plain or gzipped."""
    return (folder / name).is_file() or (folder / f"{name}.gz").is_file()


def _refuse(folder: Path, label: str, needed: str) -> None:
    """Refuse a folder that is not a collection.

    Raises:
        UsageError: saying why this is not a collection.
    """
    inside = sorted(each.name for each in folder.iterdir() if each.is_dir() and is_there(each, CORPUS))
    if len(inside) > 1:
        raise UsageError(
            f"{label}: contains {len(inside)} collections: {', '.join(inside[:HANDFUL])}",
            "Unpack it and name one of them."
            if not Path(label).is_dir()
            else f"Name one, such as {label}/{inside[0]}.",
        )
    raise UsageError(
        f"{label}: not a collection in BEIR's layout: {needed} is missing",
        "It needs corpus.jsonl, queries.jsonl and qrels/<split>.tsv.",
    )


def _files(folder: Path) -> tuple[Path, Path]:
    """Return the paths of corpus.jsonl and queries.jsonl, unpacked if they are gzipped.

    Raises:
        DataError: if one exists in both forms, because they may differ.
    """
    for name in (CORPUS, QUERIES):
        if (folder / name).is_file() and (folder / f"{name}.gz").is_file():
            raise DataError(f"{folder}: contains both {name} and {name}.gz", "Remove the older one.")
    corpus, queries = (
        folder / name if (folder / name).is_file() else unpacked_file(folder / f"{name}.gz", cache_folder())
        for name in (CORPUS, QUERIES)
    )
    return corpus, queries


def _lost(
    path: Path,
    label: str,
    queries: SomeOf[str],
    passages: SomeOf[str],
    known_queries: SomeOf[str],
    corpus: Corpus,
    file: str,
) -> str:
    """List, by line, the judgements of queries or passages that the collection does not have."""
    problems = []
    for number, query_id, passage_id, _ in qrels_lines(path, label):
        what, identity = ("query", query_id) if query_id in queries else ("passage", passage_id)
        if identity not in queries and identity not in passages:
            continue
        other = _in_another_form(identity, known_queries, corpus if what == "passage" else None)
        why = f"; it has {other!r}, which differs only in Unicode normalisation" if other else ""
        problems.append(f"{label}:{number}: the {what} {identity!r} is not in {file}{why}")
    return listed(problems)


def _query_ids(path: Path) -> set[str]:
    """Return all query ids, judged or not."""
    with path.open("rb") as stream:
        return {str(record["_id"]) for _, record in json_lines(stream, str(path)) if "_id" in record}


def _in_another_form(identity: str, queries: SomeOf[str], corpus: Corpus | None) -> str:
    """Return an id that looks the same but has different code points, or an empty string."""
    forms = [unicodedata.normalize(form, identity) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    there = (each for each in forms if (each in queries if corpus is None else corpus.row_of(each) is not None))
    return next(there, "")


def _choose_split(folder: Path, label: str, asked: str | None, preferred: Sequence[str]) -> str:
    splits = splits_in(folder)
    if not splits:
        others = sorted(path.name for path in (folder / FOLDER).glob("*") if not path.name.startswith("."))
        there = f" (qrels/ has {', '.join(others[:HANDFUL])})" if others else ""
        raise UsageError(f"{label}: no judgements: qrels/<split>.tsv is missing{there}", LAYOUT)
    if asked is not None:
        if asked not in splits:
            raise UsageError(
                f"{label}: no split {asked!r}; it has {', '.join(splits)}",
                f"Choose one: --split {splits[0]}",
            )
        return asked
    for name in preferred:
        if name in splits:
            return name
    if len(splits) > 1:
        raise UsageError(f"{label}: has several splits: {', '.join(splits)}", "Choose one with --split.")
    return splits[0]


def _read_queries(path: Path, label: str, judged: Qrels) -> dict[str, str]:
    """Map id to text for judged queries. The others are not checked (MS MARCO has half a million)."""
    texts: dict[str, str] = {}
    number = 0
    with path.open("rb") as stream:
        for number, record in json_lines(stream, label):
            place = f"{label}:{number}"
            identity = identity_of(record, place)
            if identity not in judged:
                continue
            if identity in texts:
                raise DataError(
                    f"{place}: the id {identity!r} was already used on an earlier line", "Each record needs its own."
                )
            # Not stripped, because neither BEIR nor sentence-transformers strips texts.
            texts[identity] = text_of(record, "text", place, strip=False)
    if not number:
        raise DataError(f"{label}: the file has no records", LAYOUT)
    return texts


def _read_qrels(path: Path, label: str) -> Qrels:
    qrels: Qrels = {}
    problems = []
    for number, query_id, passage_id, grade in qrels_lines(path, label):
        if qrels.setdefault(query_id, {}).setdefault(passage_id, grade) != grade:
            problems.append(f"{label}:{number}: this pair has a different grade on an earlier line")
    if problems:
        raise DataError(listed(problems))
    if not qrels:
        raise DataError(f"{label}: the file has no judgements", LAYOUT)
    return qrels
