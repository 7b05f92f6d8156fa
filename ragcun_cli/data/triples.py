"""Training triples: a query, a passage that answers it and, mostly, a hard negative that does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ragcun_cli.data.lines import listed, numbered_lines, parse_json_line, text_of
from ragcun_cli.errors import DataError, UsageError

TSV_HEADERS = {(b"query", b"positive"), (b"query", b"positive", b"negative")}


@dataclass(frozen=True, slots=True)
class Triple:
    """One training example; `negative` is None where the data give none."""

    query: str
    positive: str
    negative: str | None

    def texts(self) -> list[str]:
        """The two or three texts there are."""
        return [text for text in (self.query, self.positive, self.negative) if text is not None]


def read_triples(path: Path) -> list[Triple]:
    """Read `.jsonl` (keys query, positive and, if given, negative) or `.tsv` (the same as columns).

    Raises:
        UsageError: if there is no such file or its ending is not known.
        DataError: naming file and line of the broken rows; no row is ever skipped.
    """
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file", "Name your training triples with --set data.train=FILE.")
    parse = _PARSERS.get(path.suffix)
    if parse is None:
        raise UsageError(
            f"{path}: training triples are a file ending in {' or '.join(_PARSERS)}",
            'A .jsonl line is {"query": "...", "positive": "...", "negative": "..."}.',
        )
    triples, problems = [], []
    with path.open("rb") as stream:
        for number, line in numbered_lines(stream):
            if number == 1 and tuple(line.split()) in TSV_HEADERS:
                continue
            try:
                triples.append(parse(line, f"{path}:{number}"))
            except DataError as problem:
                problems.append(problem.message)
    if problems:
        raise DataError(
            listed(problems), f"{len(problems)} broken rows. Mend or remove them; none is skipped silently."
        )
    if not triples:
        raise DataError(f"{path}: the file has no triples")
    return triples


def _parse_jsonl(line: bytes, place: str) -> Triple:
    record = parse_json_line(line, place)
    negative = text_of(record, "negative", place) if record.get("negative") is not None else None
    return Triple(text_of(record, "query", place), text_of(record, "positive", place), negative)


def _parse_tsv(line: bytes, place: str) -> Triple:
    try:
        columns = [column.strip() for column in line.decode("utf-8").rstrip("\r\n").split("\t")]
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8 text (byte {error.start})") from None
    if len(columns) not in (2, 3):
        raise DataError(f"{place}: 2 or 3 columns are expected: query, positive, negative (got {len(columns)})")
    for name, column in zip(("query", "positive", "negative"), columns, strict=False):
        if not column:
            raise DataError(f"{place}: {name!r} is empty")
    return Triple(columns[0], columns[1], columns[2] if len(columns) == 3 else None)


_PARSERS: dict[str, Callable[[bytes, str], Triple]] = {".jsonl": _parse_jsonl, ".tsv": _parse_tsv}
