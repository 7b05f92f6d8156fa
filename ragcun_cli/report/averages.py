"""The averages a table may show: only over complete sets, each named after what it covers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ragcun_cli.data.registry import AVERAGES, BEIR, PUBLIC


@dataclass(frozen=True)
class Average:
    """The unweighted mean over datasets. short: for a column heading."""

    label: str
    short: str
    datasets: tuple[str, ...]


MOST_NAMED = 5  # most datasets that a label names
PUBLISHED = tuple(Average(label, f"Avg. {len(members)}", members) for label, members in AVERAGES.items())


def averages_over(datasets: Sequence[str], named: bool) -> list[Average]:
    """The averages whose datasets are all present.

    datasets: the table's columns. named: whether the user asked for these; a mean over whatever happens to be there
    would be mistaken for one over BEIR.
    """
    complete = [average for average in PUBLISHED if set(average.datasets) <= set(datasets)]
    asked = set(datasets)
    if named and len(asked) > 1 and all(set(average.datasets) != asked for average in complete):
        listed = f" ({', '.join(datasets)})" if len(asked) <= MOST_NAMED else ""
        complete.append(Average(f"the {len(asked)} sets named{listed}", f"Avg. of {len(asked)} named", tuple(datasets)))
    return complete


def missing_of_beir(datasets: Collection[str]) -> str:
    """Why no average over BEIR is shown; empty if no set of BEIR's is present, or if an average is shown."""
    here = [name for name in BEIR if name in datasets]
    if not here or any(set(average.datasets) <= set(datasets) for average in PUBLISHED):
        return ""
    return (
        f"No average over BEIR: results exist for {len(here)} of its 18 sets, "
        f"{len(set(here) & set(PUBLIC))} of the 14 public ones."
    )
