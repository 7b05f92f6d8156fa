"""Find which columns of a file are the query, the positive and the negatives."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ragcun_cli.errors import DataError

QUERY = ("query", "anchor", "question")
POSITIVE = ("positive", "positives", "pos")
NEGATIVE = ("negative", "negatives", "neg")
NUMBERED_NEGATIVE = re.compile(r"^negative_([0-9]+)$")
# A first line is probably a header if its cells are words without spaces and one looks like a column name.
NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_.-]*$")
OF_A_HEADER = re.compile(r"query|question|anchor|qid|pos|neg|passage|doc|text|label|score|sentence|answer|id$", re.I)

SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons"}
SEP = re.compile(r"sep=.$")

NAMES_EXPECTED = (
    "Columns must be called query (or anchor, question), positive (positives, pos) and negative (negatives, neg, "
    "negative_1, ...)."
)


@dataclass(frozen=True)
class Columns:
    """A file's names for its columns; negatives may be empty. unread: other columns."""

    query: str
    positive: str
    negatives: tuple[str, ...]
    unread: tuple[str, ...] = ()

    def described(self, negatives_in_some: bool) -> str:
        """Describe what was read, in one line; in JSON the first row need not have all columns."""
        negatives = self.negatives or (("negatives in some rows",) if negatives_in_some else ())
        read = ", ".join([self.query, self.positive, *negatives])
        return f"{read} (not read: {', '.join(self.unread)})" if self.unread else read


def is_negative(name: str) -> bool:
    """Return whether a column of this name has hard negatives."""
    return name in NEGATIVE or NUMBERED_NEGATIVE.match(name) is not None


def find_columns(names: Sequence[str]) -> Columns | None:
    """Find the columns among these names; return None if query or positive is missing."""
    query = next((name for name in QUERY if name in names), None)
    positive = next((name for name in POSITIVE if name in names), None)
    if query is None or positive is None:
        return None
    negatives = tuple(sorted(filter(is_negative, names), key=_number))
    return Columns(
        query, positive, negatives, tuple(name for name in names if name not in (query, positive, *negatives))
    )


def header_of(cells: Sequence[str], place: str) -> list[str] | None:
    """Return the names in a delimited file's first line, or None if it is a data row.

    Raises:
        DataError: if it is a header with other names, or the file has ids instead of texts.
    """
    names = [cell.strip().lower() for cell in cells]
    if find_columns(names) is not None:
        require_distinct(names, place)
        return names
    if all(name.isdigit() for name in names):
        raise DataError(
            f"{place}: these are ids, not texts: {' '.join(cells)[:80]}", "Give a file with the texts themselves."
        )
    if all(map(NAME.match, names)) and any(map(OF_A_HEADER.search, names)):
        raise DataError(f"{place}: this looks like a header with other names: {', '.join(cells)}", NAMES_EXPECTED)
    return None


def is_quoted_header(cells: Sequence[str]) -> bool:
    """Return whether a TSV's header is in CSV quotes, which means that its texts are too."""
    return len(cells) > 1 and all(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in cells)


def is_in_quotes(cell: str) -> bool:
    """Return whether a spreadsheet quoted this TSV cell: inner quotes are doubled, unlike in normal text."""
    inside = cell[1:-1]
    return len(cell) > 2 and cell[0] == cell[-1] == '"' and '""' in inside and '"' not in inside.replace('""', "")


def goes_on(cells: Sequence[str], following: Sequence[str], columns: int) -> bool:
    """Return whether a quoted cell contains a line end, so that it continues in the following TSV row."""
    opened, closed = cells[-1], following[0]
    parts = len(cells) < columns and len(cells) + len(following) == columns + 1 if columns > 1 else len(following) == 1
    odd = opened.count('"') % 2 == 1 and closed.count('"') % 2 == 1
    return parts and odd and opened.startswith('"') and closed.endswith('"')


def quoted_cells(place: str) -> DataError:
    """Return the error for a quoted cell, whose text would otherwise include the quotes."""
    return DataError(
        f"{place}: a cell is quoted as by a spreadsheet, but TSV has no quoting",
        "Save it as .csv, which supports quotes, or as .tsv without quotes.",
    )


def require_delimiter(first_line: str, delimiter: str, place: str) -> None:
    """Refuse columns with another separator.

    Raises:
        DataError: if a file's first line shows that its columns are separated by something else.
    """
    if (asked := SEP.match(first_line)) is not None:
        raise DataError(f"{place}: the first line is Excel's {asked[0]!r}", "Remove this line.")
    if delimiter in first_line:
        return
    for other, name in SEPARATORS.items():
        parts = [part.strip().strip('"') for part in first_line.split(other)]
        if len(parts) > 1 and (find_columns([part.lower() for part in parts]) or all(map(NAME.match, parts))):
            raise DataError(
                f"{place}: its columns are separated by {name}", f"Save it with {SEPARATORS[delimiter]}, or rename it."
            )


def require_distinct(names: Sequence[str], place: str) -> None:
    """Refuse a header that names a column twice.

    Raises:
        DataError: if two columns have the same name, which is ambiguous.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{place}: two columns are called {twice!r}", "Name several negatives negative_1, negative_2.")


def _number(name: str) -> tuple[int, str]:
    match = NUMBERED_NEGATIVE.match(name)
    return (int(match[1]) if match else 0), name
