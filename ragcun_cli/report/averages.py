"""Which averages a table may show: of complete sets, each called by what it is of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ragcun_cli.data.registry import AVERAGES, BEIR, PUBLIC


@dataclass(frozen=True)
class Average:
    """The unweighted mean over datasets. short: for a column's head."""

    label: str
    short: str
    datasets: tuple[str, ...]


MOST_NAMED = 5  # datasets in a label
PUBLISHED = tuple(Average(label, f"Avg. {len(members)}", members) for label, members in AVERAGES.items())


def averages_over(datasets: Sequence[str], named: bool) -> list[Average]:
    """Those that all datasets of are there.

    datasets: the table's columns. named: whether the user asked for these; a mean over what merely happens to be there
    would be read as one over BEIR.
    """
    complete = [average for average in PUBLISHED if set(average.datasets) <= set(datasets)]
    asked = set(datasets)
    if named and len(asked) > 1 and all(set(average.datasets) != asked for average in complete):
        listed = f" ({', '.join(datasets)})" if len(asked) <= MOST_NAMED else ""
        complete.append(Average(f"the {len(asked)} sets named{listed}", f"Avg. of {len(asked)} named", tuple(datasets)))
    return complete


def missing_of_beir(datasets: Collection[str]) -> str:
    """What keeps an average over BEIR from being shown; empty where none of BEIR's sets is there, or one average is."""
    here = [name for name in BEIR if name in datasets]
    if not here or any(set(average.datasets) <= set(datasets) for average in PUBLISHED):
        return ""
    return (
        f"No average over BEIR: {len(here)} of its 18 sets are scored, "
        f"{len(set(here) & set(PUBLIC))} of the 14 public ones."
    )
