"""Collections in BEIR's layout: corpus.jsonl, queries.jsonl and qrels/<split>.tsv, in a folder or in a zip."""

from __future__ import annotations

import contextlib
import hashlib
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ragcun_cli.data.lines import json_lines, listed, text_of
from ragcun_cli.errors import DataError, UsageError

CORPUS = "corpus.jsonl"
QUERIES = "queries.jsonl"
GRADE = re.compile(r"^-?[0-9]{1,6}$")


@dataclass(frozen=True)
class Collection:
    """A retrieval task: passages, the queries that are judged in one split, and their judgements.

    `qrels[query id][passage id]` is the grade. `sha256` covers the three files. Passages may be empty texts
    (FiQA has 38); `unknown_judgements` counts judgements of passages that the corpus lacks.
    """

    name: str
    split: str
    passage_ids: list[str]
    passages: list[str]
    query_ids: list[str]
    queries: list[str]
    qrels: dict[str, dict[str, int]]
    sha256: str
    unknown_judgements: int


class _Folder:
    """The files of a collection in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        return [path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file()]

    def label(self, name: str) -> str:
        return str(self.root / name)

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        with (self.root / name).open("rb") as stream:
            yield stream


class _Zip:
    """The files of a collection in a zip, read without unpacking; one folder at its top is looked through."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile:
            raise DataError(f"{path}: not a whole zip file", "Download it again.") from None
        members = [name for name in self._archive.namelist() if not name.endswith("/")]
        at = next((name for name in members if name.split("/")[-1] == CORPUS), CORPUS)
        self._prefix = at[: -len(CORPUS)]
        self._names = [name[len(self._prefix) :] for name in members if name.startswith(self._prefix)]

    def names(self) -> list[str]:
        return self._names

    def label(self, name: str) -> str:
        return f"{self.path}/{self._prefix}{name}"

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        try:
            with self._archive.open(self._prefix + name) as stream:
                yield stream
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # RuntimeError: encrypted
            raise DataError(
                f"{self.label(name)}: cannot be read from the zip ({error})", "Download it again."
            ) from None


def read_collection(path: Path, split: str | None = None) -> Collection:
    """Read a collection whole.

    Args:
        path: a folder or a zip in BEIR's layout.
        split: the name of a file in qrels/; by default `test`, or the only one there is.

    Raises:
        UsageError: if the path or the split is not there.
        DataError: naming file and line of what is broken.
    """
    if not path.exists():
        raise UsageError(f"{path}: there is no such collection", "Give a folder or a zip in BEIR's layout.")
    files: _Folder | _Zip = _Folder(path) if path.is_dir() else _Zip(path)
    names = files.names()
    for needed in (CORPUS, QUERIES):
        if needed not in names:
            raise UsageError(
                f"{path}: not a collection in BEIR's layout: {needed} is missing",
                "It needs corpus.jsonl, queries.jsonl and qrels/<split>.tsv.",
            )
    split = _choose_split(path, names, split)
    qrels_name = f"qrels/{split}.tsv"
    # Before parsing: reading a zip member to its end checks its sum, so damage is named as what it is.
    sha256 = _sha256(files, (CORPUS, QUERIES, qrels_name))
    qrels = _read_qrels(files, qrels_name)
    passages = _read_texts(files, CORPUS, _passage)
    queries = _read_texts(files, QUERIES, _query)
    unknown = sum(1 for grades in qrels.values() for passage_id in grades if passage_id not in passages)
    if unknown == sum(map(len, qrels.values())):
        raise DataError(f"{files.label(qrels_name)}: none of the judged passages is in {CORPUS}")
    missing = [query_id for query_id in qrels if query_id not in queries]
    if missing:
        raise DataError(
            f"{files.label(qrels_name)}: {len(missing)} judged queries are not in {QUERIES}, first {missing[0]!r}"
        )
    return Collection(
        name=path.stem if path.suffix == ".zip" else path.resolve().name,
        split=split,
        passage_ids=list(passages),
        passages=list(passages.values()),
        query_ids=list(qrels),
        queries=[queries[query_id] for query_id in qrels],
        qrels=qrels,
        sha256=sha256,
        unknown_judgements=unknown,
    )


def _choose_split(path: Path, names: list[str], asked: str | None) -> str:
    splits = sorted(
        name[len("qrels/") : -len(".tsv")] for name in names if name.startswith("qrels/") and name.endswith(".tsv")
    )
    if not splits:
        raise UsageError(f"{path}: there are no judgements: qrels/<split>.tsv is missing")
    if asked is not None:
        if asked not in splits:
            raise UsageError(f"{path}: there is no split {asked!r}", f"Its splits: {', '.join(splits)}.")
        return asked
    if "test" in splits:
        return "test"
    if len(splits) > 1:
        raise UsageError(f"{path}: which split? It has {', '.join(splits)}", "Say it with --split.")
    return splits[0]


def _passage(record: dict[str, Any], place: str) -> str:
    """BEIR's rule. An empty text is a passage (FiQA has 38); a key of another name is a mistake."""
    if "text" not in record:
        raise DataError(f"{place}: 'text' is missing")
    title = text_of(record, "title", place, required=False)
    return f"{title} {text_of(record, 'text', place, required=False)}".strip()


def _query(record: dict[str, Any], place: str) -> str:
    return text_of(record, "text", place)


def _read_texts(files: _Folder | _Zip, name: str, read: Callable[[dict[str, Any], str], str]) -> dict[str, str]:
    """Id -> text, in the file's order."""
    texts: dict[str, str] = {}
    label = files.label(name)
    with files.open(name) as stream:
        for number, record in json_lines(stream, label):
            place = f"{label}:{number}"
            identity = text_of(record, "_id", place)
            if len(identity.split()) > 1:
                raise DataError(f"{place}: the id {identity!r} has blanks, which TREC's formats cannot hold")
            if identity in texts:
                raise DataError(f"{place}: the id {identity!r} was already used on an earlier line")
            texts[identity] = read(record, place)
    if not texts:
        raise DataError(f"{label}: the file has no records")
    return texts


def _read_qrels(files: _Folder | _Zip, name: str) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    problems = []
    label = files.label(name)
    with files.open(name) as stream:
        for number, line in enumerate(stream, start=1):
            columns = line.decode("utf-8", errors="replace").rstrip("\r\n").split("\t")
            if number == 1:
                if _is_grade(columns[-1]):
                    raise DataError(
                        f"{label}:1: the header is missing",
                        "The first line is: query-id<TAB>corpus-id<TAB>score",
                    )
                continue
            if columns == [""]:
                continue
            if len(columns) != 3 or not _is_grade(columns[2]):
                problems.append(f"{label}:{number}: expected query-id<TAB>corpus-id<TAB>grade")
                continue
            grades = qrels.setdefault(columns[0], {})
            if grades.setdefault(columns[1], int(columns[2])) != int(columns[2]):
                problems.append(f"{label}:{number}: this pair has another grade on an earlier line")
    if problems:
        raise DataError(listed(problems))
    if not qrels:
        raise DataError(f"{label}: the file has no judgements")
    return qrels


def _is_grade(text: str) -> bool:
    return GRADE.match(text) is not None


def _sha256(files: _Folder | _Zip, names: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in names:
        with files.open(name) as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
