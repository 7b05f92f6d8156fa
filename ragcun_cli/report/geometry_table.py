"""The shape of the embeddings of passages and queries, on each dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ragcun_cli.errors import UsageError
from ragcun_cli.recipe.problems import did_you_mean
from ragcun_cli.report.rows import Row
from ragcun_cli.report.table import MISSING, Cell, FigureColumn, ResultTable, TableRow, mean_cell
from ragcun_cli.results.isotropy import SIDES, MeasuredIsotropy, SideIsotropy

# label, field of SideIsotropy, digits
FIGURES = (
    ("N", "texts", 0), ("D", "dimensions", 0), ("IsoScore", "isoscore", 3), ("mean cosine", "mean_cosine", 3),
    ("std", "standard_deviation", 3), ("EP excess", "epps_pulley_excess", 4), ("uniformity", "uniformity", 3),
)  # fmt: skip
INTERVAL = (("95 % from", 0), ("95 % to", 1))
OF_BOTH = (("alignment", "alignment", 3), ("hubness", "hubness", 2))
EXPLAINED = (
    "Shape of the embeddings as they are searched.",
    "IsoScore: unbiased, 1 is isotropic, with a bootstrap interval over texts (for several seeds its outermost ends).",
    "std: per dimension.",
    "EP excess: SIGReg's statistic for one text, unbiased, after centring and scaling; 0 for an isotropic Gaussian.",
    "Uniformity: -4 at best.",
    "Alignment: mean squared distance between the directions of a query and its relevant passages.",
    "Hubness: skewness of how often a passage is among the 10 nearest.",
)


def build_geometry(rows: Sequence[Row], named: Sequence[str], options: Mapping[str, object]) -> ResultTable:
    """Build the table, a line per row, dataset and side; empty unless all of a row's seeds were measured. Over several
    seeds, figures are means and intervals have the outermost ends.

    Raises:
        UsageError: if nothing was measured, or nothing on a dataset named.
    """
    known = sorted({dataset for row in rows for member in row.members for dataset in member.geometry})
    if not known:
        raise UsageError("no isotropy was measured", "Measure it with ragcun eval isotropy or ragcun eval beir.")
    for dataset in named:
        if dataset not in known:
            raise UsageError(f"--datasets {dataset}: no isotropy was measured on it; {did_you_mean(dataset, known)}")
    lines = [
        TableRow((row.label, dataset, side), _cells(row, dataset, side))
        for dataset in (list(dict.fromkeys(named)) or known)
        for side in SIDES
        for row in rows
        if any(member.side(dataset, side) for each in rows for member in each.members)
    ]
    before, after = FIGURES[:3], FIGURES[3:]
    columns = [FigureColumn(label, digits) for label, _, digits in before]
    columns += [FigureColumn(label, 3) for label, _ in INTERVAL]
    columns += [FigureColumn(label, digits) for label, _, digits in (*after, *OF_BOTH)]
    return ResultTable(
        caption=" ".join(part for part in (*EXPLAINED[:1], _seeds(rows), *EXPLAINED[1:]) if part),
        notes=(),
        marks="",
        stubs=("model", "dataset", "of"),
        columns=tuple(columns),
        rows=tuple(lines),
        options=dict(options),
    )


def _seeds(rows: Sequence[Row]) -> str:
    several = any(len(row.members) > 1 for row in rows)
    return "Means over seeds, ± their standard deviation." if several else ""


def _cells(row: Row, dataset: str, side: str) -> tuple[Cell, ...]:
    sides = [found for member in row.members if (found := member.side(dataset, side)) is not None]
    if len(sides) < len(row.members):
        return (MISSING,) * (len(FIGURES) + len(INTERVAL) + len(OF_BOTH))
    sources = [
        member.entry.fingerprint(member.geometry[dataset].sha256, member.geometry[dataset].split)
        for member in row.members
    ]
    figures = {key: _mean(sides, key, sources) for _, key, _ in FIGURES}
    ends = [each.interval for each in sides]
    outer = [MISSING, MISSING]
    if all(ends):
        outer = [
            mean_cell([choose(end[place] for end in ends if end)], sources) for place, choose in enumerate((min, max))
        ]
    # These are for both sides together, so they appear once.
    both = [
        _mean([member.geometry[dataset].measured for member in row.members], key, sources)
        if side == SIDES[0]
        else MISSING
        for _, key, _ in OF_BOTH
    ]
    keys = [key for _, key, _ in FIGURES]
    return (*(figures[key] for key in keys[:3]), *outer, *(figures[key] for key in keys[3:]), *both)


def _mean(entries: Sequence[SideIsotropy | MeasuredIsotropy], key: str, sources: Sequence[str]) -> Cell:
    values = [value for entry in entries if (value := getattr(entry, key)) is not None]
    cell = mean_cell(values, sources) if len(values) == len(entries) else MISSING
    # With a spread for every figure, the table would not fit on a page.
    return cell if key == "isoscore" else Cell(cell.value, None, cell.seeds, sources=cell.sources)
