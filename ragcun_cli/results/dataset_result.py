"""<dataset>.json: one model's scores on one dataset, by which rules and with what they were made; written last."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ragcun_cli import files
from ragcun_cli.errors import DataError
from ragcun_cli.results.isotropy import MeasuredIsotropy
from ragcun_cli.results.json_files import read_json, try_json
from ragcun_cli.results.layout import QUERIES_ENDING, RUN_ENDING, SPECTRUM_ENDING
from ragcun_cli.results.model_entry import ModelEntry

# The rules that may differ between rows; all others must be the same for a whole column.
RULES_OF_A_ROW = ("similarity",)


@dataclass(frozen=True, kw_only=True)
class ScoredTexts:
    """The dataset as it was scored; the fields are the JSON keys, in order.

    path: as given; found_at: its absolute path at the time. sha256: of all its texts and judgements.
    differs_from_published: how a registered dataset differs from the published one; None for others. remark: what a
    reader must know about a registered one. parts: an entry per forum.
    """

    name: str
    path: str = ""
    found_at: str
    split: str
    sha256: str
    passages: int = 0
    empty_passages: int = 0
    duplicate_ids: int = 0
    queries: int
    judgements: int = 0
    judgements_of_unknown_passages: int = 0
    queries_without_relevant: int = 0
    differs_from_published: list[str] | None
    remark: str | None = None
    parts: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetResult:
    """One model's result on one dataset; all fields but `folder` are the JSON keys, in order.

    format: version of the computation. fingerprint: of everything that decides them. metrics: means over queries, from
    0 to 1. ties: what the order of equally distant passages changes; None if nothing. robustness: transform -> nDCG@10
    after it; robustness_ties: likewise for ties. isotropy: what was measured along the way. files: size and sha256
    of the files beside it. parts: an entry per forum. folder: where it is.
    """

    format: int
    fingerprint: str
    dataset: ScoredTexts
    model: ModelEntry
    rules: dict[str, Any]
    precision: str = "float32"
    metrics: dict[str, float]
    ties: dict[str, Any] | None = None
    robustness: dict[str, float | None]
    robustness_ties: dict[str, Any] = field(default_factory=dict)
    isotropy: MeasuredIsotropy | None
    search: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str]
    command: str
    files: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, Any] | None = None
    folder: Path

    @classmethod
    def of(cls, content: Mapping[str, Any], folder: Path) -> DatasetResult:
        """Make a result from JSON.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: if it is not a result.
        """
        known = _known(cls, content)
        known["dataset"] = ScoredTexts(**_known(ScoredTexts, content["dataset"]))
        known["model"] = ModelEntry.of(content["model"])
        known["metrics"] = {name: float(value) for name, value in content["metrics"].items()}
        known["robustness"] = dict(content["robustness"])
        isotropy = content["isotropy"]
        known["isotropy"] = None if isotropy is None else MeasuredIsotropy.of(isotropy)
        return cls(**known, folder=folder)

    @classmethod
    def read(cls, path: Path) -> DatasetResult:
        """Read the file, strictly.

        Raises:
            DataError: if it cannot be read, or is filed under another dataset's name.
        """
        content = read_json(path)
        try:
            result = cls.of(content, path.parent)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: not a ragcun result ({error!r})", "Remove it, or evaluate again.") from None
        if result.name != path.stem:
            raise DataError(
                f"{path}: holds a result on {result.name}", "A result's file is named after its dataset: rename it."
            )
        return result

    @classmethod
    def find(cls, path: Path) -> DatasetResult | None:
        """Return the result in this file; None if there is none or it cannot be read."""
        try:
            return cls.of(try_json(path), path.parent)
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def write(self) -> None:
        """Write the result into its folder."""
        files.write_json(self.path, self.content())

    def content(self) -> dict[str, Any]:
        """Return the content of the JSON file."""
        content = {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if each.name != "folder"}
        dataset = {each.name: getattr(self.dataset, each.name) for each in dataclasses.fields(self.dataset)}
        content |= {"dataset": _without_none(dataset, "remark", "parts"), "model": self.model.content()}
        content["isotropy"] = None if self.isotropy is None else self.isotropy.content()
        return _without_none(content, "parts")

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.dataset.name

    @property
    def split(self) -> str:
        """The split whose queries were scored."""
        return self.dataset.split

    @property
    def sha256(self) -> str:
        """The digest of the dataset's texts and judgements."""
        return self.dataset.sha256

    @property
    def queries(self) -> int:
        """How many queries were scored."""
        return self.dataset.queries

    @property
    def rules_of_column(self) -> dict[str, Any]:
        """The rules that every row must have been scored by."""
        return {key: value for key, value in self.rules.items() if key not in RULES_OF_A_ROW}

    @property
    def path(self) -> Path:
        """The JSON file."""
        return self.folder / f"{self.name}.json"

    @property
    def per_query(self) -> Path:
        """The Parquet file with every metric of every query."""
        return self.folder / f"{self.name}{QUERIES_ENDING}"

    @property
    def run(self) -> Path:
        """The file of rankings in TREC's format, gzipped."""
        return self.folder / f"{self.name}{RUN_ENDING}"

    @property
    def spectrum(self) -> Path:
        """The TSV file of eigenvalues and deviations."""
        return self.folder / f"{self.name}{SPECTRUM_ENDING}"


def _known(kind: type, content: Mapping[str, Any]) -> dict[str, Any]:
    names = {each.name for each in dataclasses.fields(kind)}
    return {key: value for key, value in content.items() if key in names}


def _without_none(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in keys or value is not None}
