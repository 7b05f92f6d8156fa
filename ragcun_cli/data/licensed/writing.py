"""Turn a licensed set, as its reader yields it, into a collection on disk, and compare its counts with BEIR's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ragcun_cli import files
from ragcun_cli.data.collection_writer import Written, passage_record, write_beir_layout
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
    """What a reader extracts from the owner's files. passages are read once, before queries, which some readers find
    in passages; queries: id -> text; judgements: query id -> passage id -> grade.
    """

    passages: Iterable[Passage]
    queries: dict[str, str]
    judgements: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Imported:
    """Counts of what was written, and how they differ from the published ones."""

    folder: Path
    passages: int
    queries: int
    judgements: int
    differences: tuple[str, ...]


def write_collection(known: KnownDataset, parts: Parts, folder: Path) -> Imported:
    """Write corpus.jsonl, queries.jsonl and qrels/test.tsv, either all or nothing.

    Raises:
        DataError: if two passages have the same id, or there are no passages, queries or judgements.
    """
    with files.new_folder(folder) as temporary:
        passages = (passage_record(each.identity, each.text, each.title) for each in _distinct(parts.passages))
        written = write_beir_layout(temporary, "test", passages, _judged(parts), _judgements(parts))
        if not (written.passages and written.queries and written.judgements):
            raise DataError(
                f"{known.name}: {written.passages} passages, {written.queries} queries and {written.judgements} "
                "judgements were found",
                "Check that these are the owner's files. See: ragcun data import --help",
            )
    return Imported(folder, written.passages, written.queries, written.judgements, _differences(known, written))


def _judged(parts: Parts) -> Iterator[tuple[str, str]]:
    """Yield judged queries; call this after reading passages, where some readers find queries."""
    yield from ((query, parts.queries[query]) for query in parts.judgements if query in parts.queries)


def _judgements(parts: Parts) -> Iterator[tuple[str, str, int]]:
    for query, grades in parts.judgements.items():
        if query in parts.queries:
            yield from ((query, passage, grade) for passage, grade in grades.items())


def read_trec_qrels(
    lines: Iterable[str], label: str, grades: dict[str, int] | None = None
) -> dict[str, dict[str, int]]:
    """Read judgements in TREC's format (query, 0, passage, grade); `grades` maps the file's grades to BEIR's.

    Raises:
        DataError: naming the broken line.
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
            raise DataError(f"two passages have the id {passage.identity!r}", "Check for duplicate files.")
        seen.add(passage.identity)
        yield passage


def _differences(known: KnownDataset, written: Written) -> tuple[str, ...]:
    counted = {
        "passages": (written.passages, known.passages),
        "queries": (written.queries, known.queries),
        "judgements": (written.judgements, known.judgements),
    }
    return tuple(
        f"{found:,} {what}, but BEIR's {known.name} has {published:,}"
        for what, (found, published) in counted.items()
        if published is not None and found != published
    )
