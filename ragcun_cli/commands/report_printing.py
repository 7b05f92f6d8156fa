"""Print the output of `ragcun report` on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ragcun_cli.console import Column, note, plain, print_styled, print_table, print_text, result_console
from ragcun_cli.quantities import counted

if TYPE_CHECKING:
    from ragcun_cli.report.claims import Claims
    from ragcun_cli.report.expectations import ExpectationOutcome
    from ragcun_cli.report.table import Cell, FigureColumn, ResultTable
    from ragcun_cli.report.verify_results import ResultCheck
    from ragcun_cli.report.verify_table import TableCheck

VERDICT_STYLES = {"better": "green", "worse": "red"}


def print_headlines(stated: Claims) -> None:
    """Print a sentence for each answer in the colour of its verdict."""
    for each in stated.headlines():
        style = VERDICT_STYLES.get(each.verdict)
        print_styled(f"[{style}]{plain(each.text)}[/]" if style else plain(each.text))


def print_comparisons(stated: Claims) -> None:
    """Print all comparisons, averages first."""
    from ragcun_cli.report.sentences import p_value
    from ragcun_cli.report.table import metric_label

    headers = ("difference", "95 % interval", "p", "corrected")
    columns = [
        Column("row"),
        Column("on"),
        *(Column(each, numeric=True) for each in headers),
        Column(""),
    ]
    rows = []
    for each in (*stated.averages, *stated.datasets):
        interval = each.over_seeds.interval if each.is_average and each.over_seeds is not None else each.interval
        shown = "–" if interval is None else f"{100 * interval[0]:+.2f} to {100 * interval[1]:+.2f}"
        figures = ["–" if value is None else p_value(value) for value in (each.p_judged, each.p_corrected)]
        figures[1] = "" if each.exploratory else figures[1]
        style = VERDICT_STYLES.get(each.verdict)
        verdict = f"[{style}]{each.verdict}[/]" if style else each.verdict
        rows.append(
            [
                plain(stated.label(each.row)),
                plain(each.scored_on),
                f"{100 * each.difference:+.2f}",
                shown,
                *figures,
                verdict,
            ]
        )
    label = f"{metric_label(stated.metric)} x 100, difference from {stated.baseline.label}"
    print_table(columns, rows, caption=plain(label))


def print_result_table(built: ResultTable) -> None:
    """Print the table on a terminal."""
    columns = [Column(plain(stub)) for stub in built.stubs]
    columns += [Column(plain(column.label), numeric=True) for column in built.columns]
    rows = [[*map(plain, row.stubs), *map(_markup, row.cells, built.columns)] for row in built.rows]
    marks = built.marks if result_console().is_terminal else ""  # without a terminal there is no bold or underline
    caption = " ".join(part for part in (built.caption, marks) if part)
    print_table(columns, rows, caption=plain("\n".join([caption, *built.notes])))


def print_expectations(outcomes: Sequence[ExpectationOutcome], source: str, verified: bool) -> None:
    """Print expected values beside measured ones."""
    columns = [
        Column("row"),
        Column("figure"),
        Column("expected", numeric=True),
        Column("measured", numeric=True),
    ]
    columns += [Column("")]
    rows = []
    for each in outcomes:
        digits = 3 if each.expectation.figure == "isotropy" else 2
        measured = "–" if each.measured is None else f"{each.measured:.{digits}f}"
        measured += f" ± {each.deviation:.{digits}f}" if each.deviation is not None else ""
        figure = "isotropy" if each.expectation.figure == "isotropy" else "nDCG@10 x 100"
        why = each.why or each.over
        rows.append([each.expectation.row, figure, f"{each.expectation.expected:g} ± {each.expectation.within:g}",
                     measured, plain(f"{each.verdict}: {why}")])  # fmt: skip
    state = "Verified." if verified else "Expectations were never verified."
    print_table(columns, rows, caption=plain(f"{state} Source: {source}"))


def print_checks(checks: Sequence[ResultCheck], tables: Sequence[TableCheck]) -> None:
    """Print what no longer matches and what was checked."""
    problems = [f"{each.model} on {each.dataset}: {problem}" for each in checks for problem in each.problems]
    problems += [f"{each.path}: {problem}" for each in tables for problem in each.problems]
    for dataset, why in dict.fromkeys((each.dataset, why) for each in checks for why in each.unchecked):
        note(f"{dataset}: its runs were not rescored: {why}.")
    scored = sum(not each.unchecked for each in checks)
    looked = f"{counted(len(checks), 'result')}: means and isotropy checked; runs of {scored} rescored"
    if tables:
        looked += f". {sum(each.cells for each in tables)} cells of {counted(len(tables), 'file')}"
    found = f"{counted(len(problems), 'difference')}" if problems else "No differences"
    print_text("\n".join([*problems, f"{looked}. {found}."]))
    for remark in [f"{each.path}: {remark}" for each in tables for remark in each.remarks]:
        note(remark)
    if any(each.path.endswith(".html") for each in tables):
        note("The pictures, examples and provenance of a page are not checked.")
    note("Not checked because they need the embeddings: IsoScore itself, and scores after int8, binary and truncation.")


def _markup(cell: Cell, column: FigureColumn) -> str:
    text = cell.printed(column.digits)
    if text is None:
        return "–"
    text = f"[bold]{text}[/bold]" if cell.best else f"[underline]{text}[/underline]" if cell.second else text
    deviation = cell.printed_deviation(column.digits)
    return text + (f" ± {deviation}" if deviation is not None else "") + cell.mark
