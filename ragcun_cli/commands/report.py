"""`ragcun report`: tables from results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from ragcun_cli.report.table import Cell, ResultTable

app = typer.Typer(no_args_is_help=True, help="Tables from the results on disk.")


@app.callback()
def _group() -> None:
    """Keep `report` a group while it has one command."""


@app.command()
def table(
    output_format: str = typer.Option("text", "--format", "-f", help="text, markdown, latex, json or csv."),
    metric: str = typer.Option("ndcg@10", "--metric", help="ndcg@10, recall@100, map or mrr."),
    datasets: str = typer.Option("", "--datasets", help="Which datasets, comma-separated; all by default."),
    results: Path = typer.Option(Path("results"), "--results", help="Where the results lie."),
    json_output: bool = typer.Option(False, "--json", help="The same as --format json."),
) -> None:
    """Print the table: models by datasets, their average, and the passages' IsoScore.

    Example: ragcun report table --format latex > table.tex
    """
    from ragcun_cli.console import print_text
    from ragcun_cli.errors import UsageError
    from ragcun_cli.recipe.problems import did_you_mean
    from ragcun_cli.report.collect import collect
    from ragcun_cli.report.formats import FORMATS
    from ragcun_cli.report.table import build_table

    output_format = "json" if json_output else output_format
    known = ["text", *FORMATS]
    if output_format not in known:
        raise UsageError(f"--format {output_format}: there is no such format; {did_you_mean(output_format, known)}")
    names = [name.strip() for name in datasets.split(",") if name.strip()]
    built = build_table(collect(results), metric, names)
    if output_format == "text":
        print_result_table(built)
    else:
        print_text(FORMATS[output_format](built))


def print_result_table(built: ResultTable) -> None:
    """The table on a terminal."""
    from ragcun_cli.console import Column, plain, print_table
    from ragcun_cli.report.table import MARKS

    columns = [Column("model"), *(Column(plain(name), numeric=True) for name in built.columns)]
    rows = [[plain(model), *map(_markup, row)] for model, row in zip(built.models, built.rows, strict=True)]
    print_table(columns, rows, caption=f"{plain(built.caption)} {MARKS}")


def _markup(cell: Cell) -> str:
    text = cell.text or "–"
    return f"[bold]{text}[/bold]" if cell.best else f"[underline]{text}[/underline]" if cell.second else text
