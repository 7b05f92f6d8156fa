"""Compare expected figures with measured ones: met, not met or not measured. They never enter a results table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ragcun_cli.errors import DataError, UsageError
from ragcun_cli.report.averages import PUBLISHED
from ragcun_cli.report.rows import Row, mean_and_deviation

SHIPPED = Path(__file__).with_name("expected.yaml")
BEIR_AVERAGES = PUBLISHED[:2]  # the source says "BEIR" but not which sets; the first complete average is used
ISOTROPY_NOTE = (
    "The expected isotropy is for a measure that the source does not define and its code cannot produce; what is "
    "measured here is the unbiased IsoScore of the passages."
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Expectation(_Strict):
    """One expected figure. row: its name in the tables. figure: nDCG@10 x 100, or IsoScore."""

    row: str = Field(min_length=1)
    figure: Literal["ndcg@10", "isotropy"]
    expected: float
    within: float = Field(ge=0)


class ExpectationFile(_Strict):
    """Figures that somebody expects, and who says so."""

    source: str = Field(min_length=1)
    verified: bool
    expectations: list[Expectation] = Field(min_length=1)


@dataclass(frozen=True)
class ExpectationOutcome:
    """One expectation and what became of it. over: what the figure was measured on; why: the reason if it was not
    measured.
    """

    expectation: Expectation
    measured: float | None
    deviation: float | None
    over: str
    why: str

    @property
    def verdict(self) -> str:
        """`met`, `not met` or `not measured`."""
        if self.measured is None:
            return "not measured"
        distance = abs(self.measured - self.expectation.expected)
        return "met" if distance <= self.expectation.within else "not met"

    def entry(self) -> dict[str, Any]:
        """The outcome as a dictionary, for JSON."""
        return {
            **self.expectation.model_dump(),
            "verdict": self.verdict,
            "measured": self.measured,
            "deviation": self.deviation,
            "over": self.over,
            "why": self.why,
        }


def read_expectations(path: Path = SHIPPED) -> ExpectationFile:
    """Read a file of expected figures.

    Raises:
        UsageError: if there is no such file.
        DataError: if it is not valid, naming the file and the key.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return ExpectationFile.model_validate(content)
    except FileNotFoundError:
        raise UsageError(
            f"--expected {path}: there is no such file", f"ragcun's {SHIPPED.name} shows the format."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid YAML ({error})", f"ragcun's {SHIPPED.name} shows the format.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(f"{path}: {where}: {first['msg']}", f"ragcun's {SHIPPED.name} shows the format.") from None


def compare_expectations(expected: ExpectationFile, rows: Sequence[Row]) -> list[ExpectationOutcome]:
    """Compare each expectation with the row of that name."""
    by_name: Mapping[str, Row] = {row.name: row for row in rows}
    return [_outcome(expectation, by_name.get(expectation.row)) for expectation in expected.expectations]


def _outcome(expectation: Expectation, row: Row | None) -> ExpectationOutcome:
    if row is None:
        return ExpectationOutcome(expectation, None, None, "", f"there is no row {expectation.row}")
    for average in BEIR_AVERAGES:
        values = _by_seed(expectation, row, average.datasets)
        if values:
            mean, deviation = mean_and_deviation(values)
            return ExpectationOutcome(expectation, mean, deviation, average.label, "")
    scored = [name for name in BEIR_AVERAGES[0].datasets if row.scores(name, "ndcg@10")]
    why = f"{row.name} is scored on {len(scored)} of BEIR's {len(BEIR_AVERAGES[0].datasets)} sets"
    return ExpectationOutcome(expectation, None, None, "", why)


def _by_seed(expectation: Expectation, row: Row, datasets: Sequence[str]) -> list[float]:
    if expectation.figure == "isotropy":
        per_dataset = [row.isoscores(name) for name in datasets]
    else:
        per_dataset = [[100 * score for score in row.scores(name, "ndcg@10")] for name in datasets]
    if not all(per_dataset):
        return []
    return [sum(of_seed) / len(of_seed) for of_seed in zip(*per_dataset, strict=True)]
