"""`ragcun data check`: find problems in data before training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ragcun_cli.commands.choices import listed
from ragcun_cli.commands.data.options import DATA_DIR, JSON, require_new_triples
from ragcun_cli.console import Column, note, plain, print_json, print_table
from ragcun_cli.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from ragcun_cli.data.checking import CheckReport

EXAMPLE_CHARACTERS = 70
LENGTH_COLUMNS = ("measured", "mean", "median", "95 %", "longest", "cut")


def check(
    sources: list[str] = typer.Argument(
        ..., help="Training files, collections in BEIR's layout, or names from `ragcun data list`."
    ),
    data_dir: Path = DATA_DIR,
    dev: str | None = typer.Option(
        None, "--dev", help="Dev set to look for in the training data (default: msmarco's own)."
    ),
    against: list[str] = typer.Option(
        [],
        "--against",
        help="Test sets to look for in the training data, comma-separated (default: all BEIR sets in --data-dir).",
    ),
    tokenizer: str = typer.Option(
        "embedded:all-MiniLM-L6-v2", "--tokenizer", help="Model whose tokenizer measures text lengths."
    ),
    max_length: int = typer.Option(384, "--max-length", min=2, help="Texts with more tokens than this count as cut."),
    batch_size: int = typer.Option(
        16,
        "--batch-size",
        min=2,
        help="Training batch size, for counting leftover triples and positives that act as in-batch negatives.",
    ),
    write: Path | None = typer.Option(
        None,
        "--write",
        metavar="CLEAN.jsonl",
        help="Write the triples that contain no query or answer of the dev and test sets. Allows only one source; the "
        "counts go to CLEAN.jsonl.provenance.json.",
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace CLEAN.jsonl if it exists."),
    no_lengths: bool = typer.Option(False, "--no-lengths", help="Skip token lengths, the slowest check."),
    strict: bool = typer.Option(False, "--strict", help="Exit with code 1 if anything was found."),
    json_output: bool = JSON,
) -> None:
    """Show what training data and collections contain, and what is wrong with them.

    Reports counts, token lengths, duplicates, empty texts, negatives that are positives, and any dev or test queries
    and their passages among the training texts. Example: ragcun data check msmarco --against scifact,nfcorpus
    """
    import dataclasses

    if write is not None:
        if len(sources) > 1:
            raise UsageError("--write: writes one file, but several sources are given", "Name only one.")
        require_new_triples(write, overwrite, "--write")
    count_tokens = None
    if not no_lengths:
        from ragcun_cli.model.sources import require_model

        require_model(tokenizer)
        from ragcun_cli.model.tokenizer import token_counter

        count_tokens = token_counter(tokenizer)

    from ragcun_cli.data.reports import CheckOptions, check_source

    others = listed(against)
    wishes = CheckOptions(data_dir, dev, others, count_tokens, max_length, batch_size, write)
    reports = [report for source in sources for report in check_source(source, wishes)]
    if json_output:
        print_json([dataclasses.asdict(each) for each in reports])
    else:
        for report in reports:
            _print_report(report)
    if strict and any(report.findings for report in reports):
        raise typer.Exit(ExitCode.FAILED)


def _print_report(report: CheckReport) -> None:
    from ragcun_cli.data.checking import shortened

    counts = [[what, f"{count:,}"] for what, count in report.counts.items()]
    print_table([Column(plain(report.source)), Column("", numeric=True)], counts)
    if report.lengths:
        columns = [Column("tokens of"), *(Column(each, numeric=True) for each in LENGTH_COLUMNS)]
        print_table(
            columns,
            [
                [
                    each.of,
                    f"{each.texts:,}",
                    f"{each.mean:.1f}",
                    f"{each.median:.0f}",
                    f"{each.percentile_95:.0f}",
                    f"{each.longest:,}",
                    f"{each.cut:,} ({100 * each.cut / max(1, each.texts):.1f} %) over {each.limit}",
                ]
                for each in report.lengths
            ],
        )
    count, of = Column("count", numeric=True), Column("of", numeric=True)
    columns = [Column("found", wraps=True), count, of, Column("such as", wraps=True)]
    rows = [
        [each.what, f"{each.count:,}", f"{each.of:,}", plain(shortened(each.examples[0], EXAMPLE_CHARACTERS))]
        for each in report.findings
    ]
    if rows:
        print_table(columns, rows)
    found = len(report.findings)
    note(f"{report.source}: {len(report.checked)} checks, {found or 'none'} found something.")
    if report.written:
        note(f"Written to {report.written}.")
    for each in report.not_checked:
        note(f"Not checked: {each}")
