"""A collection in BEIR's layout from streams of passages, queries and judgements, counted as it is written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ragcun_cli import files
from ragcun_cli.data.qrels import grade_of
from ragcun_cli.data.registry import KnownDataset
from ragcun_cli.errors import DataError


@dataclass(frozen=True)
class Passage:
    """One line of corpus.jsonl."""

    identity: str
    title: str
    text: str


@dataclass(frozen=True)
class Parts:
    """What a reader makes of the owner's files. passages are read once, and before queries, which some readers find
    among them; queries: id -> text; judgements: query id -> passage id -> grade.
    """

    passages: Iterable[Passage]
    queries: dict[str, str]
    judgements: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Imported:
    """Counts of what was written, and in what they differ from the published ones."""

    folder: Path
    passages: int
    queries: int
    judgements: int
    differences: tuple[str, ...]


def write_collection(known: KnownDataset, parts: Parts, folder: Path) -> Imported:
    """Write corpus.jsonl, queries.jsonl and qrels/test.tsv, all of it or nothing.

    Raises:
        DataError: if two passages have one id, or there are no passages, queries or judgements.
    """
    with files.new_folder(folder) as temporary:
        passages = _write_lines(
            temporary / "corpus.jsonl",
            ({"_id": each.identity, "title": each.title, "text": each.text} for each in _distinct(parts.passages)),
        )
        judged = {query: grades for query, grades in parts.judgements.items() if query in parts.queries}
        queries = _write_lines(
            temporary / "queries.jsonl", ({"_id": each, "text": parts.queries[each]} for each in judged)
        )
        judgements = _write_qrels(temporary / "qrels" / "test.tsv", judged)
        if not (passages and queries and judgements):
            raise DataError(
                f"{known.name}: {passages} passages, {queries} queries and {judgements} judgements were found",
                "Are these the files that its owner delivers? See: ragcun data import --help",
            )
    return Imported(folder, passages, queries, judgements, _differences(known, passages, queries, judgements))


def read_trec_qrels(
    lines: Iterable[str], label: str, grades: dict[str, int] | None = None
) -> dict[str, dict[str, int]]:
    """Judgements in TREC's format (query, 0, passage, grade); `grades` maps the file's grades to BEIR's.

    Raises:
        DataError: naming the line that is broken.
    """
    judgements: dict[str, dict[str, int]] = {}
    for number, line in enumerate(lines, start=1):
        columns = line.split()
        if not columns:
            continue
        grade = None
        if len(columns) == 4:
            grade = grades.get(columns[3]) if grades else grade_of(columns[3])
        if grade is None:
            raise DataError(f"{label}:{number}: expected: query 0 passage grade (got {line.strip()[:80]!r})")
        judgements.setdefault(columns[0], {})[columns[2]] = grade
    return judgements


def _distinct(passages: Iterable[Passage]) -> Iterator[Passage]:
    seen: set[str] = set()
    for passage in passages:
        if passage.identity in seen:
            raise DataError(f"two passages have the id {passage.identity!r}", "Is a file given twice?")
        seen.add(passage.identity)
        yield passage


def _write_lines(path: Path, records: Iterable[dict[str, str]]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as stream:
        for record in records:
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    return count


def _write_qrels(path: Path, judgements: dict[str, dict[str, int]]) -> int:
    path.parent.mkdir()
    with path.open("w", encoding="utf-8") as stream:
        stream.write("query-id\tcorpus-id\tscore\n")
        for query, grades in judgements.items():
            for passage, grade in grades.items():
                stream.write(f"{query}\t{passage}\t{grade}\n")
    return sum(map(len, judgements.values()))


def _differences(known: KnownDataset, passages: int, queries: int, judgements: int) -> tuple[str, ...]:
    counted = {
        "passages": (passages, known.passages),
        "queries": (queries, known.queries),
        "judgements": (judgements, known.judgements),
    }
    return tuple(
        f"{found:,} {what}, where {known.name} has {published:,}"
        for what, (found, published) in counted.items()
        if published is not None and found != published
    )
