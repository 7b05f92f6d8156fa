"""`ragcun report`: tables, claims, figures and a page from the results on disk."""

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

app = typer.Typer(
    no_args_is_help=True, help="Tables, claims, figures and a page from the results on disk, and whether they hold."
)

RESULTS = typer.Option(Path("results"), "--results", help="Where the results lie.")
METRIC = typer.Option("ndcg@10", "--metric", help="Any that the results have, such as ndcg@10, recall@100, map, mrr.")
DATASETS = typer.Option("", "--datasets", "-d", help="Which datasets, comma-separated; all by default.")
ROWS = typer.Option("", "--rows", help="Which rows, comma-separated, in this order; all by default.")
BASELINE = typer.Option(
    None,
    "--baseline",
    help="The row that the others are compared with; by default the only arm that trains the encoder without an "
    "isotropy term.",
)
CORRECTION = typer.Option(
    "holm",
    "--correction",
    help="Of p-values, over all rows and datasets there are: holm, bh or none.",
)
PRIMARY = typer.Option(
    [],
    "--primary",
    metavar="'ROW vs BASELINE'",
    help="A planned comparison; repeatable. Only planned comparisons are corrected, all others are exploratory. "
    "Without any, all are corrected.",
)
RUNS = typer.Option(Path("checkpoints"), "--runs", help="Where run folders lie that are no longer where they were.")
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
        "shape of the embeddings. cost: what training took. robustness: nDCG@10 of smaller embeddings.",
    ),
    metric: str = METRIC,
    datasets: str = DATASETS,
    rows: str = ROWS,
    baseline: str | None = BASELINE,
    correction: Correction = CORRECTION,
    primary: list[str] = PRIMARY,
    runs: Path = RUNS,
    dollars_per_hour: float | None = typer.Option(
        None, "--dollars-per-hour", help="What a device costs an hour, for the preset `cost`."
    ),
    results: Path = RESULTS,
    json_output: bool = typer.Option(False, "--json", help="The same as --format json."),
) -> None:
    """Print a table of the results; seeds of one arm are one row, mean and standard deviation.

    Marks of significance are of paired tests against the baseline. An average is shown over complete sets only: BEIR's
    18, its 14 public ones, these and MS MARCO, or the sets that --datasets names.

    Example: ragcun report table --format latex > table.tex
    """
    import json

    from ragcun_cli.console import note, print_document, print_json
    from ragcun_cli.report.building import TableOptions, build_table
    from ragcun_cli.report.formats import FORMATS

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
    if output_format == "csv":  # which has no room for notes
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
        False, "--details", help="Each comparison in a sentence: interval, p-value, effect size, what could be found."
    ),
    results: Path = RESULTS,
    json_output: bool = JSON,
) -> None:
    """State what the results show of each row against the baseline: better, worse, or no difference shown.

    First one sentence for each primary comparison (for each arm, where none is declared), then a table of all
    comparisons; --details adds a sentence for each.

    Example: ragcun report claims --primary 'isotropy vs baseline'
    """
    from ragcun_cli.console import note, print_json, print_paragraphs
    from ragcun_cli.report.selection import Selection
    from ragcun_cli.report.stating import state

    stated = state(results, Selection(metric, listed(datasets), listed(rows), baseline, correction, primary))
    if json_output:
        print_json(stated.entry())
        return
    print_headlines(stated)
    print_comparisons(stated)
    print_paragraphs([*(stated.sentences() if details else stated.remarks), stated.preamble])
    if not details:
        note("Each comparison in a sentence: --details")


@app.command()
def expectations(
    expected: Path | None = typer.Option(
        None, "--expected", help="A file of expectations; by default the figures of the earlier guide, never verified."
    ),
    results: Path = RESULTS,
    json_output: bool = JSON,
) -> None:
    """Compare what people expect with what was measured: met, not met, or not measured.

    These figures stand in no other table.

    Example: ragcun report expectations
    """
    from ragcun_cli.console import note, print_json
    from ragcun_cli.report.building import read_rows
    from ragcun_cli.report.collect import has_results
    from ragcun_cli.report.expectations import ISOTROPY_NOTE, SHIPPED, compare_expectations, read_expectations

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
    out: Path = typer.Option(Path("figures"), "--out", "-o", help="The folder that the files are written into."),
    formats: str = typer.Option("pdf,svg,png", "--formats", help="Which of pdf, svg and png, comma-separated."),
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
    """Draw effects, isotropy against score, queries won and lost, spectra, cosines, lengths and training curves.

    Needs matplotlib, which the extra `figures` brings.

    Example: ragcun report figures --formats pdf
    """
    from ragcun_cli.console import note, print_json, print_text
    from ragcun_cli.errors import UsageError
    from ragcun_cli.files import require_writable, write_bytes, write_text
    from ragcun_cli.recipe.problems import did_you_mean
    from ragcun_cli.report.material import KINDS, require_matplotlib

    kinds = listed(formats)
    for kind in kinds or ("",):
        if kind not in KINDS:
            raise UsageError(f"--formats {kind}: there is no such format; {did_you_mean(kind, list(KINDS))}")
    if out.is_file():
        raise UsageError(f"--out {out}: is a file", "Name the folder that the figures are to be written into.")
    require_writable(out / "captions.txt")
    require_matplotlib()

    from ragcun_cli.report.figures.drawing import draw_all
    from ragcun_cli.report.figures.style import saved
    from ragcun_cli.report.material import gather
    from ragcun_cli.report.selection import Selection

    material = gather(results, Selection(metric, listed(datasets), listed(rows), baseline, correction, primary), runs)
    drawn, left = draw_all(material)
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
        note(f"{missing.name} is left out: {missing.why}.")


@app.command()
def page(
    out: Path = typer.Option(Path("report.html"), "--out", "-o", help="The file that is written."),
    metric: str = METRIC,
    datasets: str = DATASETS,
    rows: str = ROWS,
    baseline: str | None = BASELINE,
    correction: Correction = CORRECTION,
    primary: list[str] = PRIMARY,
    runs: Path = RUNS,
    data_dir: Path = typer.Option(
        Path("data"), "--data-dir", help="Where datasets lie, for the texts of the greatest wins and losses."
    ),
    expected: Path | None = typer.Option(None, "--expected", help="A file of expectations other than the shipped one."),
    results: Path = RESULTS,
    json_output: bool = JSON,
) -> None:
    """Write everything into one HTML file that needs no network: claims, tables, figures, examples, provenance.

    Needs matplotlib, which the extra `figures` brings.

    Example: ragcun report page --out report.html
    """
    from ragcun_cli.console import note, print_json, print_text
    from ragcun_cli.errors import UsageError
    from ragcun_cli.files import require_writable, write_text
    from ragcun_cli.report.expectations import SHIPPED, read_expectations
    from ragcun_cli.report.material import require_matplotlib

    require_matplotlib()
    if out.is_dir():
        raise UsageError(f"--out {out}: is a folder", "Name the file that is to be written.")
    require_writable(out)
    file = read_expectations(expected or SHIPPED)

    from ragcun_cli.report.material import gather
    from ragcun_cli.report.page.render import render_page
    from ragcun_cli.report.selection import Selection

    material = gather(results, Selection(metric, listed(datasets), listed(rows), baseline, correction, primary), runs)
    built = render_page(material, results, data_dir, file)
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
        None, help="Tables that `report table` wrote (.json, .tex, .md, .html); none: the results alone."
    ),
    data_dir: Path = typer.Option(Path("data"), "--data-dir", help="Where datasets lie, for scoring runs again."),
    results: Path = RESULTS,
    json_output: bool = JSON,
) -> None:
    """Compute every figure again from runs and per-query scores, and name the cells that no longer match.

    Exit code 1 if something does not. IsoScore needs the embeddings: what was written of it in several places is
    compared instead.

    Example: ragcun report verify table.tex
    """
    from ragcun_cli.console import print_json
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
