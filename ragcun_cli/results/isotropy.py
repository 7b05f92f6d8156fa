"""isotropy.json: the shape of one model's embeddings on each dataset, measured with its scores or without."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragcun_cli import files
from ragcun_cli.errors import DataError
from ragcun_cli.results.json_files import read_json, try_json
from ragcun_cli.results.layout import ISOTROPY

SIDES = ("passages", "queries")
NOT_OURS = (KeyError, TypeError, ValueError, AttributeError)  # what `of` raises for JSON of another shape


@dataclass(frozen=True, kw_only=True)
class SideIsotropy:
    """Figures of the passages' embeddings, or of the queries'; the fields are the keys, in their order.

    `ragcun_cli.evaluate.geometry.EmbeddingStats` defines each figure; None means that it cannot be computed.
    """

    texts: int
    dimensions: int
    isoscore: float | None = None
    interval: tuple[float, float] | None = None
    mean_cosine: float | None = None
    standard_deviation: float | None = None
    effective_rank: float | None = None
    effective_rank_texts: int | None = None
    uniformity: float | None = None
    epps_pulley_excess: float | None = None
    least_deviation: float | None = None
    greatest_deviation: float | None = None

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> SideIsotropy:
        """Read a side from JSON; raise one of `NOT_OURS` for another shape."""
        known = {each.name: content[each.name] for each in dataclasses.fields(cls) if each.name in content}
        if known.get("interval") is not None:
            low, high = known["interval"]
            known["interval"] = (low, high)
        return cls(**known)


@dataclass(frozen=True, kw_only=True)
class MeasuredIsotropy:
    """Both sides, and how they relate. queries: None if there are too few of them."""

    passages: SideIsotropy
    queries: SideIsotropy | None
    alignment: float | None = None
    hubness: float | None = None
    hubness_neighbours: int | None = None

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> MeasuredIsotropy:
        """Read a measurement from JSON; raise one of `NOT_OURS` for another shape."""
        queries = content["queries"]
        return cls(
            passages=SideIsotropy.of(content["passages"]),
            queries=None if queries is None else SideIsotropy.of(queries),
            alignment=content.get("alignment"),
            hubness=content.get("hubness"),
            hubness_neighbours=content.get("hubness_neighbours"),
        )

    def content(self) -> dict[str, Any]:
        """Return the JSON form."""
        return dataclasses.asdict(self)

    def side(self, name: str) -> SideIsotropy | None:
        """Return the figures of `passages` or `queries`."""
        return self.passages if name == "passages" else self.queries


@dataclass(frozen=True)
class IsotropyEntry:
    """What isotropy.json says about one dataset. sha256: of its texts and judgements."""

    split: str
    sha256: str
    measured: MeasuredIsotropy

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> IsotropyEntry:
        """Read an entry from JSON; raise one of `NOT_OURS` for another shape."""
        return cls(str(content["split"]), str(content["sha256"]), MeasuredIsotropy.of(content))

    def content(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"split": self.split, "sha256": self.sha256, **self.measured.content()}


def read_isotropy(folder: Path) -> dict[str, IsotropyEntry]:
    """Read a model's isotropy.json: dataset -> entry; empty if the file does not exist.

    Raises:
        DataError: if it is not a file that ragcun wrote.
    """
    path = folder / ISOTROPY
    if not path.is_file():
        return {}
    entries = {}
    for dataset, content in read_json(path).items():
        try:
            entries[dataset] = IsotropyEntry.of(content)
        except NOT_OURS:
            raise DataError(
                f"{path}: {dataset}: not a measurement by ragcun", "Measure again: ragcun eval isotropy."
            ) from None
    return entries


def find_isotropy(folder: Path, dataset: str) -> IsotropyEntry | None:
    """Return the entry of one dataset; None if there is no readable one."""
    try:
        return IsotropyEntry.of(try_json(folder / ISOTROPY)[dataset])
    except NOT_OURS:
        return None


def put_isotropy(folder: Path, dataset: str, entry: IsotropyEntry) -> None:
    """Add one dataset's entry to isotropy.json, or replace it; the others stay as they are."""
    entries = {**try_json(folder / ISOTROPY), dataset: entry.content()}
    files.write_json(folder / ISOTROPY, dict(sorted(entries.items())))
