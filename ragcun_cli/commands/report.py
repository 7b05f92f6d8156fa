"""`ragcun report`: make tables, claims, figures and a page from the results on disk."""

from __future__ import annotations

from pathlib import Path

import typer

from ragcun_cli.commands.choices import Correction, Preset, TableFormat, listed
from ragcun_cli.commands.report_printing import (
    print_checks,
    print_comparisons,
    print_expectations,
    print_headlines,
    print_result_table,
)
from ragcun_cli.console import note, print_document, print_json, print_paragraphs, print_text
from ragcun_cli.errors import UsageError
from ragcun_cli.files import require_writable, write_bytes, write_text
from ragcun_cli.recipe.problems import did_you_mean

app = typer.Typer(
    no_args_is_help=True, help="Make tables, claims, figures and a page from the results on disk, and verify them."
)

RESULTS = typer.Option(Path("results"), "--results", help="Folder with the results.")
METRIC = typer.Option("ndcg@10", "--metric", help="Any metric in the results, such as ndcg@10, recall@100, map, mrr.")
DATASETS = typer.Option("", "--datasets", "-d", help="Datasets to use, comma-separated (default: all).")
ROWS = typer.Option("", "--rows", help="Rows to use, comma-separated, in this order (default: all).")
BASELINE = typer.Option(
    None,
    "--baseline",
    help="Row to compare the others with (default: the only arm that trains the encoder without an isotropy term).",
)
CORRECTION = typer.Option(
    "holm",
    "--correction",
    help="Correction of p-values over all rows and datasets: holm, bh or none.",
)
PRIMARY = typer.Option(
    [],
    "--primary",
    metavar="'ROW vs BASELINE'",
    help="A planned comparison; may be repeated. Only planned comparisons are corrected; all others are exploratory. "
    "Without this option, all are corrected.",
)
RUNS = typer.Option(Path("checkpoints"), "--runs", help="Where to look for run folders that have been moved.")
JSON = typer.Option(False, "--json", help="Print JSON.")


@app.command()
def table(
    output_format: TableFormat = typer.Option(
        "text", "--format", "-f", help="text, latex, markdown, html, csv or json."
    ),
    preset: Preset = typer.Option(
        "scores",
        "--preset",
        help="scores: every dataset and the averages. paper: average, MS MARCO, SciFact, FiQA, isotropy. geometry: the "
        "shape of the embeddings. cost: cost of training. robustness: nDCG@10 of compressed embeddings.",
    ),
    metric: str = METRIC,
    datasets: str = DATASETS,
    rows: str = ROWS,
    baseline: str | None = BASELINE,
    correction: Correction = CORRECTION,
    primary: list[str] = PRIMARY,
    runs: Path = RUNS,
    dollars_per_hour: float | None = typer.Option(
        None, "--dollars-per-hour", help="Cost of a device per hour, for the preset `cost`."
    ),
    results: Path = RESULTS,
    json_output: bool = typer.Option(False, "--json", help="The same as --format json."),
) -> None:
    """Print a table of the results; the seeds of an arm form one row with mean and standard deviation.

    Significance marks come from paired tests against the baseline. Averages are shown only over complete sets: BEIR's
    18, its 14 public ones, these 14 with MS MARCO, or the sets named by --datasets.

    Example: ragcun report table --format latex > table.tex
    """
    import json

    from ragcun_cli.report.formats import FORMATS
    from ragcun_cli.report.tables import TableOptions, build_table

    output_format = "json" if json_output else output_format
    options = TableOptions(
        preset, metric, listed(datasets), listed(rows), baseline, correction, str(runs), dollars_per_hour,
        tuple(primary),
    )  # fmt: skip
    built = build_table(results, options)
    if output_format == "text":
        print_result_table(built)
    elif output_format == "json":
        print_json(json.loads(FORMATS["json"](built)))
    else:
        print_document(FORMATS[output_format](built))
    if output_format == "csv":  # CSV has no room for notes
        for sentence in built.notes:
            note(sentence)


@app.command()
def claims(
    metric: str = METRIC,
    datasets: str = DATASETS,
    rows: str = ROWS,
    baseline: str | None = BASELINE,
    correction: Correction = CORRECTION,
    primary: list[str] = PRIMARY,
    details: bool = typer.Option(
        False, "--details", help="A sentence for each comparison: interval, p-value, effect size, detectable effect."
    ),
    results: Path = RESULTS,
    json_output: bool = JSON,
) -> None:
    """State for each row what the results show against the baseline: better, worse, or no difference shown.

    Prints one sentence for each primary comparison (if none is declared, for each arm), then a table of all
    comparisons; --details adds a sentence for each.

    Example: ragcun report claims --primary 'isotropy vs baseline'
    """
    from ragcun_cli.report.claims import build_claims
    from ragcun_cli.report.selection import Selection

    stated = build_claims(results, Selection(metric, listed(datasets), listed(rows), baseline, correction, primary))
    if json_output:
        print_json(stated.entry())
        return
    print_headlines(stated)
    print_comparisons(stated)
    print_paragraphs([*(stated.sentences() if details else stated.remarks), stated.preamble])
    if not details:
        note("Add --details to describe each comparison in a sentence.")


@app.command()
def expectations(
    expected: Path | None = typer.Option(
        None, "--expected", help="A file of expectations (default: the unverified figures of the earlier guide)."
    ),
    results: Path = RESULTS,
    json_output: bool = JSON,
) -> None:
    """Compare expectations with measurements: met, not met, or not measured.

    The expected figures appear in no other table.

    Example: ragcun report expectations
    """
    from ragcun_cli.report.collect import has_results
    from ragcun_cli.report.expectations import ISOTROPY_NOTE, SHIPPED, compare_expectations, read_expectations
    from ragcun_cli.report.tables import read_rows

    file = read_expectations(expected or SHIPPED)
    outcomes = compare_expectations(file, read_rows(results, ()) if has_results(results) else [])
    if json_output:
        print_json(
            {"source": file.source, "verified": file.verified, "expectations": [each.entry() for each in outcomes]}
        )
        return
    print_expectations(outcomes, file.source, file.verified)
    if any(each.expectation.figure == "isotropy" for each in outcomes):
        note(ISOTROPY_NOTE)


@app.command()
def figures(
    out: Path = typer.Option(Path("figures"), "--out", "-o", help="Folder for the output files."),
    formats: str = typer.Option("pdf,svg,png", "--formats", help="Any of pdf, svg and png, comma-separated."),
    metric: str = METRIC,
    datasets: str = DATASETS,
    rows: str = ROWS,
    baseline: str | None = BASELINE,
    correction: Correction = CORRECTION,
    primary: list[str] = PRIMARY,
    runs: Path = RUNS,
    results: Path = RESULTS,
    json_output: bool = JSON,
) -> None:
    """Draw effects, isotropy against score, queries won and lost, spectra, cosines, lengths, and training curves.

    Needs matplotlib, which the extra `figures` installs.

    Example: ragcun report figures --formats pdf
    """
    from ragcun_cli.report.context import KINDS, require_matplotlib

    kinds = listed(formats)
    for kind in kinds or ("",):
        if kind not in KINDS:
            raise UsageError(f"--formats {kind}: unknown format; {did_you_mean(kind, list(KINDS))}")
    if out.is_file():
        raise UsageError(f"--out {out}: is a file", "Name a folder for the figures.")
    require_writable(out / "captions.txt")
    require_matplotlib()

    from ragcun_cli.report.context import load_context
    from ragcun_cli.report.figures.drawing import draw_all
    from ragcun_cli.report.figures.style import saved
    from ragcun_cli.report.selection import Selection

    context = load_context(
        results, Selection(metric, listed(datasets), listed(rows), baseline, correction, primary), runs
    )
    drawn, left = draw_all(context)
    written = []
    for each in drawn:
        for kind in kinds:
            path = out / f"{each.name}.{kind}"
            write_bytes(path, saved(each.figure, kind))
            written.append({"figure": each.name, "path": str(path), "caption": each.caption})
    if drawn:
        write_text(out / "captions.txt", "".join(f"{each.name}: {each.caption}\n" for each in drawn))
    if json_output:
        print_json({"written": written, "left_out": [each.__dict__ for each in left]})
        return
    print_text("\n".join(entry["path"] for entry in written) if written else "Nothing could be drawn.")
    for missing in left:
        note(f"{missing.name} is omitted: {missing.why}.")


@app.command()
def page(
    out: Path = typer.Option(Path("report.html"), "--out", "-o", help="File to write."),
    metric: str = METRIC,
    datasets: str = DATASETS,
    rows: str = ROWS,
    baseline: str | None = BASELINE,
    correction: Correction = CORRECTION,
    primary: list[str] = PRIMARY,
    runs: Path = RUNS,
    data_dir: Path = typer.Option(
        Path("data"), "--data-dir", help="Folder with the datasets, for the texts of the biggest wins and losses."
    ),
    expected: Path | None = typer.Option(None, "--expected", help="A file of expectations (default: the shipped one)."),
    results: Path = RESULTS,
    json_output: bool = JSON,
) -> None:
    """Write everything into one HTML file that needs no network: claims, tables, figures, examples, provenance.

    Needs matplotlib, which the extra `figures` installs.

    Example: ragcun report page --out report.html
    """
    from ragcun_cli.report.context import require_matplotlib
    from ragcun_cli.report.expectations import SHIPPED, read_expectations

    require_matplotlib()
    if out.is_dir():
        raise UsageError(f"--out {out}: is a folder", "Name a file to write.")
    require_writable(out)
    file = read_expectations(expected or SHIPPED)

    from ragcun_cli.report.context import load_context
    from ragcun_cli.report.page.render import render_page
    from ragcun_cli.report.selection import Selection

    context = load_context(
        results, Selection(metric, listed(datasets), listed(rows), baseline, correction, primary), runs
    )
    built = render_page(context, results, data_dir, file)
    write_text(out, built.html)
    if json_output:
        print_json({"path": str(out), "left_out": built.left_out})
        return
    print_text(str(out))
    for silence in built.left_out:
        note(silence)


@app.command()
def verify(
    tables: list[Path] = typer.Argument(
        None, help="Tables written by `report table` (.json, .tex, .md, .html); if none, only the results are verified."
    ),
    data_dir: Path = typer.Option(Path("data"), "--data-dir", help="Folder with the datasets, for rescoring the runs."),
    results: Path = RESULTS,
    json_output: bool = JSON,
) -> None:
    """Recompute every figure from runs and per-query scores, and list the cells that no longer match.

    Exit code 1 if there is a mismatch. IsoScore cannot be recomputed without embeddings: its copies in different files
    are compared instead.

    Example: ragcun report verify table.tex
    """
    from ragcun_cli.report.verify_results import verify_results
    from ragcun_cli.report.verify_table import verify_table

    checks = verify_results(results, data_dir)
    table_checks = [verify_table(path, results) for path in tables or ()]
    if json_output:
        print_json({"results": [each.__dict__ for each in checks], "tables": [each.__dict__ for each in table_checks]})
    else:
        print_checks(checks, table_checks)
    if any(each.problems for each in checks) or any(each.problems for each in table_checks):
        raise typer.Exit(1)
