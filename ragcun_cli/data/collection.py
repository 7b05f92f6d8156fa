"""Collections in BEIR's layout: corpus.jsonl, queries.jsonl and qrels/<split>.tsv in a folder."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ragcun_cli.data.cache import cache_folder
from ragcun_cli.data.corpus import Corpus, identity_of, open_corpus
from ragcun_cli.data.lines import json_lines, listed, text_of
from ragcun_cli.data.unpacked import unpack
from ragcun_cli.errors import DataError, UsageError
from ragcun_cli.files import sha256_of_file

CORPUS = "corpus.jsonl"
QUERIES = "queries.jsonl"
LAYOUT = "docs/your-own.md shows what a collection in BEIR's layout holds."
OTHER_FILES = "Do these files belong together? Unpack or fetch the collection again."
GRADE = re.compile(r"^-?[0-9]{1,6}$")

Qrels = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Collection:
    """A retrieval task: passages, the queries that are judged in one split, and their judgements.

    `qrels[query id][passage id]` is the grade. `sha256` covers the three files. `unknown_judgements` counts judgements
    of passages that the corpus lacks. qrels_path: where they are read from; qrels_label: what errors call it.
    """

    name: str
    split: str
    corpus: Corpus
    query_ids: list[str]
    queries: list[str]
    qrels: Qrels
    sha256: str
    unknown_judgements: int
    qrels_path: Path
    qrels_label: str

    @property
    def judgements(self) -> int:
        """How many there are, those of unknown passages included."""
        return sum(map(len, self.qrels.values()))

    @property
    def queries_without_relevant(self) -> int:
        """Queries all of whose judgements are 0 or less: they score 0, whatever is found."""
        return sum(max(grades.values()) <= 0 for grades in self.qrels.values())

    def texts(self) -> list[str]:
        """Each distinct passage and query; for collections that fit into memory."""
        return list(dict.fromkeys([*self.corpus.texts(), *self.queries]))


def read_collection(path: Path, split: str | None = None, preferred: Sequence[str] = ("test",)) -> Collection:
    """Read a collection; its passages stay on disk.

    Args:
        path: a folder or a zip in BEIR's layout.
        split: the name of a file in qrels/; by default the first of `preferred` there is, or the only one there is.

    Raises:
        UsageError: if the path or the split is not there.
        DataError: naming file and line of what is broken.
    """
    if not path.exists():
        raise UsageError(f"{path}: there is no such collection", "Give a folder or a zip in BEIR's layout.")
    name = path.stem if path.suffix == ".zip" else path.resolve().name
    folder = path if path.is_dir() else unpack(path, cache_folder())
    return read_folder(folder, name, split, str(path), preferred)


def read_folder(
    folder: Path, name: str, split: str | None, label: str, preferred: Sequence[str] = ("test",)
) -> Collection:
    """`read_collection` of a folder under any name; `label` is what errors call it."""
    for needed in (CORPUS, QUERIES):
        if not (folder / needed).is_file():
            raise UsageError(
                f"{label}: not a collection in BEIR's layout: {needed} is missing",
                "It needs corpus.jsonl, queries.jsonl and qrels/<split>.tsv.",
            )
    split = _choose_split(folder, label, split, preferred)
    qrels_path, qrels_label = folder / "qrels" / f"{split}.tsv", f"{label}/qrels/{split}.tsv"
    qrels = _read_qrels(qrels_path, qrels_label)
    queries = _read_queries(folder / QUERIES, f"{label}/{QUERIES}", qrels)
    missing = [query_id for query_id in qrels if query_id not in queries]
    if missing:
        raise DataError(
            f"{qrels_label}: {len(missing)} judged queries are not in {QUERIES}, first {missing[0]!r}", OTHER_FILES
        )
    corpus = open_corpus(folder / CORPUS, cache_folder(), f"{label}/{CORPUS}")
    judged = {passage_id for grades in qrels.values() for passage_id in grades}
    unknown = {passage_id for passage_id in judged if corpus.row_of(passage_id) is None}
    if len(unknown) == len(judged):
        raise DataError(f"{qrels_label}: none of the judged passages is in {CORPUS}", OTHER_FILES)
    digests = (corpus.facts.sha256, sha256_of_file(folder / QUERIES), sha256_of_file(qrels_path))
    return Collection(
        name=name,
        split=split,
        corpus=corpus,
        query_ids=list(qrels),
        queries=[queries[query_id] for query_id in qrels],
        qrels=qrels,
        sha256=hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        unknown_judgements=sum(passage_id in unknown for grades in qrels.values() for passage_id in grades),
        qrels_path=qrels_path,
        qrels_label=qrels_label,
    )


def splits_in(folder: Path) -> list[str]:
    """The names of the files with judgements."""
    return sorted(path.stem for path in (folder / "qrels").glob("*.tsv"))


def _choose_split(folder: Path, label: str, asked: str | None, preferred: Sequence[str]) -> str:
    splits = splits_in(folder)
    if not splits:
        raise UsageError(f"{label}: there are no judgements: qrels/<split>.tsv is missing", LAYOUT)
    if asked is not None:
        if asked not in splits:
            raise UsageError(f"{label}: there is no split {asked!r}", f"Its splits: {', '.join(splits)}.")
        return asked
    for name in preferred:
        if name in splits:
            return name
    if len(splits) > 1:
        raise UsageError(f"{label}: which split? It has {', '.join(splits)}", "Say it with --split.")
    return splits[0]


def _read_queries(path: Path, label: str, judged: Qrels) -> dict[str, str]:
    """Id -> text of the judged queries. Nothing is asked of the others (MS MARCO has half a million)."""
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
                    f"{place}: the id {identity!r} was already used on an earlier line", "Each record has its own."
                )
            texts[identity] = text_of(record, "text", place)
    if not number:
        raise DataError(f"{label}: the file has no records", LAYOUT)
    return texts


def qrels_lines(path: Path, label: str) -> Iterator[tuple[int, str, str, int]]:
    """(line number, query id, passage id, grade) of each judgement.

    As BEIR's loader reads them: with quotes around an id that needs them (Wikipedia titles do).

    Raises:
        DataError: naming the lines that are broken, after the last.
    """
    problems = []
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        rows = csv.reader(stream, delimiter="\t")
        try:
            header = next(rows, [])
            if len(header) != 3 or _is_grade(header[2].strip().removesuffix(".0")):
                raise DataError(
                    f"{label}:1: the header is missing", "The first line is: query-id<TAB>corpus-id<TAB>score"
                )
            for columns in rows:
                place = f"{label}:{rows.line_num}"
                if not columns:
                    continue
                if len(columns) != 3 or not _is_grade(columns[2]):
                    problems.append(f"{place}: expected query-id<TAB>corpus-id<TAB>grade, a whole number")
                    continue
                yield rows.line_num, columns[0], columns[1], int(columns[2])
        except csv.Error as error:
            raise DataError(f"{label}:{rows.line_num}: cannot be read: {error}") from None
    if problems:
        raise DataError(listed(problems))


def _read_qrels(path: Path, label: str) -> Qrels:
    qrels: Qrels = {}
    problems = []
    for number, query_id, passage_id, grade in qrels_lines(path, label):
        if qrels.setdefault(query_id, {}).setdefault(passage_id, grade) != grade:
            problems.append(f"{label}:{number}: this pair has another grade on an earlier line")
    if problems:
        raise DataError(listed(problems))
    if not qrels:
        raise DataError(f"{label}: the file has no judgements", LAYOUT)
    return qrels


def _is_grade(text: str) -> bool:
    return GRADE.match(text) is not None
