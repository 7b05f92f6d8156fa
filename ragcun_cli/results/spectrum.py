"""<dataset>.spectrum.tsv: the covariance's eigenvalues, descending, and each dimension's standard deviation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ragcun_cli import files
from ragcun_cli.arrays import Figures
from ragcun_cli.errors import DataError

EIGENVALUES, DEVIATIONS = "eigenvalue", "deviation"


def column(what: str, side: str) -> str:
    """Return a column's name. what: EIGENVALUES or DEVIATIONS; side: passages or queries."""
    return f"{what}_{side}"


def write_spectrum(path: Path, columns: Mapping[str, Figures]) -> None:
    """Write columns of equal length, by name."""
    rows = zip(*columns.values(), strict=True)
    lines = ["\t".join(["number", *columns])]
    lines += ["\t".join([str(number), *(f"{value:.9g}" for value in row)]) for number, row in enumerate(rows, start=1)]
    files.write_text(path, "\n".join(lines) + "\n")


def read_spectrum(path: Path) -> dict[str, Figures]:
    """Read the columns of a spectrum, by name.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        head, *lines = path.read_text(encoding="utf-8").splitlines()
        columns = np.array([[float(value) for value in line.split("\t")] for line in lines]).T
        return dict(zip(head.split("\t"), columns, strict=True))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the spectrum cannot be read ({error})", "Evaluate again.") from None
