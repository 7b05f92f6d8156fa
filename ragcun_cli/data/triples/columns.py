"""Which column of a file is the query, which the positive, and which are negatives."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ragcun_cli.errors import DataError

QUERY = ("query", "anchor", "question")
POSITIVE = ("positive", "positives", "pos")
NEGATIVE = ("negative", "negatives", "neg")
NUMBERED_NEGATIVE = re.compile(r"^negative_([0-9]+)$")
# A first line that is rather a header than a text: words without blanks, one of them as columns are called.
NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_.-]*$")
OF_A_HEADER = re.compile(r"query|question|anchor|qid|pos|neg|passage|doc|text|label|score|sentence|answer|id$", re.I)

NAMES_EXPECTED = (
    "Columns are called query (or anchor, question), positive (positives, pos) and negative (negatives, neg, "
    "negative_1, ...)."
)


@dataclass(frozen=True)
class Columns:
    """The names that a file gives them; negatives may be none. unread: others that it has."""

    query: str
    positive: str
    negatives: tuple[str, ...]
    unread: tuple[str, ...] = ()

    def described(self, negatives_in_some: bool) -> str:
        """For the one line that confirms what was read; JSON's first row need not have all columns."""
        negatives = self.negatives or (("negatives in some rows",) if negatives_in_some else ())
        read = ", ".join([self.query, self.positive, *negatives])
        return f"{read} (not read: {', '.join(self.unread)})" if self.unread else read


def is_negative(name: str) -> bool:
    """Whether a column of this name has hard negatives."""
    return name in NEGATIVE or NUMBERED_NEGATIVE.match(name) is not None


def find_columns(names: Sequence[str]) -> Columns | None:
    """The columns among these names; None if query or positive is not among them."""
    query = next((name for name in QUERY if name in names), None)
    positive = next((name for name in POSITIVE if name in names), None)
    if query is None or positive is None:
        return None
    negatives = tuple(sorted(filter(is_negative, names), key=_number))
    return Columns(
        query, positive, negatives, tuple(name for name in names if name not in (query, positive, *negatives))
    )


def header_of(cells: Sequence[str], place: str) -> list[str] | None:
    """The names in a delimited file's first line; None if it is a row already.

    Raises:
        DataError: if it is a header of other names, or if the file has ids in place of texts.
    """
    require_commas(cells, place)
    names = [cell.strip().lower() for cell in cells]
    if find_columns(names) is not None:
        require_distinct(names, place)
        return names
    if all(name.isdigit() for name in names):
        raise DataError(
            f"{place}: these are ids, not texts: {' '.join(cells)[:80]}", "ragcun trains on the texts themselves."
        )
    if all(map(NAME.match, names)) and any(map(OF_A_HEADER.search, names)):
        raise DataError(f"{place}: this looks like a header of other names: {', '.join(cells)}", NAMES_EXPECTED)
    return None


def is_quoted_header(cells: Sequence[str]) -> bool:
    """Whether a TSV's first line is a header in CSV's quotes, so that its texts are in them too."""
    return len(cells) > 1 and all(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in cells)


def require_commas(cells: Sequence[str], place: str) -> None:
    """
    Raises:
        DataError: if a first line is one cell with semicolons, as spreadsheets of some countries write CSV.
    """
    parts = [part.strip() for part in cells[0].split(";")] if len(cells) == 1 else []
    if len(parts) > 1 and all(map(NAME.match, parts)):
        raise DataError(f"{place}: its columns are separated by semicolons", "Save it with commas, or as .tsv.")


def require_distinct(names: Sequence[str], place: str) -> None:
    """
    Raises:
        DataError: if two columns have one name: which of them is meant cannot be known.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{place}: two columns are called {twice!r}", "Call several negatives negative_1, negative_2.")


def _number(name: str) -> tuple[int, str]:
    match = NUMBERED_NEGATIVE.match(name)
    return (int(match[1]) if match else 0), name
