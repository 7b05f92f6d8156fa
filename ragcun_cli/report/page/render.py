"""The page: claims, then the figures behind them, then where everything comes from. `page.html` is its template."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ragcun_cli.environment import command_line, versions
from ragcun_cli.errors import UsageError
from ragcun_cli.evaluate.datasets import Dataset
from ragcun_cli.report.collect import ModelResults
from ragcun_cli.report.context import ReportContext
from ragcun_cli.report.expectations import ISOTROPY_NOTE, ExpectationFile, compare_expectations
from ragcun_cli.report.figures.drawing import draw_all
from ragcun_cli.report.figures.style import saved
from ragcun_cli.report.formats.html import to_html
from ragcun_cli.report.page.examples import Extremes, find_extremes
from ragcun_cli.report.rows import Row, no_baseline
from ragcun_cli.report.sentences import isotropy_sentence, sentence
from ragcun_cli.report.staleness import stale_sentences
from ragcun_cli.report.table import metric_label
from ragcun_cli.report.tables import TableOptions, build_table
from ragcun_cli.report.verify_results import find_texts
from ragcun_cli.results.dataset_result import DatasetResult

HERE = Path(__file__).parent
PRESETS = ("scores", "geometry", "robustness", "cost")
LONGEST_TEXT = 400  # characters of a passage
# The page fetches nothing: with this policy, the browser refuses even what a mistake here would ask for.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Page:
    """The finished page. left_out: what is not in it, and why."""

    html: str
    left_out: list[str]


def render_page(context: ReportContext, results: Path, data_dir: Path, expected: ExpectationFile) -> Page:
    """Render the page of the chosen rows.

    Raises:
        UsageError: if a flag asks for something that is not there.
        DataError: if results cannot be read or compared.
    """
    drawn, not_drawn = draw_all(context)
    left_out = [f"{each.name}: {each.why}." for each in not_drawn]
    options = _options(context)
    html = _template().render(
        title=f"Isotropy and retrieval: {metric_label(context.metric)} of {len(context.rows)} systems",
        subtitle=_subtitle(context),
        policy=POLICY,
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "page.js").read_text(encoding="utf-8")),
        stale=stale_sentences(each for row in context.rows for each in row.stale),
        **_claims(context, left_out),
        tables={preset: _table(results, options(preset), left_out) for preset in PRESETS},
        figures=[
            {"name": each.name, "caption": each.caption, "svg": base64.b64encode(saved(each.figure, "svg")).decode()}
            for each in drawn
        ],
        not_drawn=not_drawn,
        metric=metric_label(context.metric),
        baseline=None if context.baseline is None else context.baseline.name,
        examples=_examples(context, data_dir, left_out),
        **_provenance(context),
        expected=expected,
        isotropy_note=ISOTROPY_NOTE,
        expectations=_expectations(expected, context.every),
    )
    return Page(html + "\n", left_out)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Pages are compared byte for byte, and the two libraries spell quotes differently.
        finalize=lambda value: value if hasattr(value, "__html__") else Markup(escape(str(value))),
    )
    environment.filters["shortened"] = _shortened
    return environment.get_template("page.html")


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT].rsplit(" ", 1)[0] + " …"


def _subtitle(context: ReportContext) -> str:
    against = f"compared with {context.baseline.label}" if context.baseline is not None else "without a baseline"
    return f"{', '.join(row.label for row in context.rows)} on {', '.join(context.datasets)}, {against}."


def _options(context: ReportContext) -> Callable[[str], TableOptions]:
    """The options of each preset's table, over the page's rows and datasets."""

    shared = TableOptions(
        datasets=tuple(context.datasets) if context.named else (),
        rows=tuple(row.name for row in context.rows),
        runs=str(context.runs),
    )

    def of(preset: str) -> TableOptions:
        if preset == "cost":
            return replace(shared, preset=preset, datasets=())
        if preset != "scores":
            return replace(shared, preset=preset)
        baseline = None if context.baseline is None else context.baseline.name
        return replace(
            shared,
            metric=context.metric,
            baseline=baseline,
            correction=context.correction,
            primary=context.primary,
        )

    return of


def _claims(context: ReportContext, left_out: list[str]) -> dict[str, Any]:
    """headlines: a sentence for each primary comparison; claims: every comparison, by kind and row."""
    stated = context.claims
    if stated is None:
        why = "there is nothing to compare" if context.baseline is not None else no_baseline(context.every)
        left_out.append(f"claims: {why}.")
        return {"headlines": None, "no_claims": why}
    claims = [
        ("Other rows", [(each.verdict, each.text) for each in stated.others()]),
        ("Averages", [(each.verdict, sentence(each)) for each in stated.averages]),
        ("Isotropy", [(each.verdict, isotropy_sentence(each)) for each in stated.isotropy]),
    ]
    for row in dict.fromkeys(each.row for each in stated.datasets):
        items = [(each.verdict, sentence(each)) for each in stated.datasets if each.row == row]
        claims.append((f"{row} against {stated.baseline.name}, by dataset", items))
    claims.append(("Remarks", [("", remark) for remark in stated.remarks]))
    headlines = [(each.verdict, each.text) for each in stated.headlines()]
    return {"headlines": headlines, "claims": claims, "preamble": stated.preamble}


def _table(results: Path, options: TableOptions, left_out: list[str]) -> dict[str, Any]:
    try:
        table = build_table(results, options)
    except UsageError as error:
        left_out.append(f"{options.preset}: {error.message}.")
        return {"why": error.message}
    figures, _, notes = to_html(table).partition("</table>\n")
    caption = " ".join(part for part in (table.caption, table.marks) if part)
    # Captions stay in place while a wide table scrolls sideways.
    figures = figures.replace(f"<caption>{escape(caption)}</caption>\n", "")
    return {
        "figures": Markup(figures), "caption": caption, "notes": Markup(notes), "provenance": table.provenance,
    }  # fmt: skip


def _examples(context: ReportContext, data_dir: Path, left_out: list[str]) -> list[Extremes] | None:
    """What each arm won and lost most by; None where there is no arm to compare with a baseline."""
    baseline = context.baseline
    arms = [row for row in context.rows if row.trained and row is not baseline and row.first.entry.is_plain]
    if baseline is None or not arms:
        return None
    texts: dict[str, Dataset | None] = {}

    def texts_of(result: DatasetResult) -> Dataset | None:
        if result.name not in texts:
            texts[result.name] = find_texts(result, data_dir)
        return texts[result.name]

    found = [find_extremes(row, baseline, context.datasets, context.metric, texts_of) for row in arms]
    for name in sorted({name for extremes in found for name in extremes.absent}):
        left_out.append(f"texts of {name}: {data_dir}/ does not have the dataset as it was when scored (--data-dir).")
    return found


def _provenance(context: ReportContext) -> dict[str, Any]:
    rows = list(context.rows)
    if context.baseline is not None and context.baseline not in rows:
        rows.append(context.baseline)
    members = [member for row in rows for member in row.members]
    results = [result for member in members for result in member.datasets.values()
               if result.name in context.datasets]  # fmt: skip
    datasets = {result.name: [result.name, result.split, str(result.queries), result.sha256] for result in results}
    rules = {
        f"{result.name}: " + ", ".join(f"{key} {value}" for key, value in result.rules_of_column.items())
        for result in results
    }
    return {
        "models": [[each.name, str(each.entry.identity), str(each.entry.path), _seed(each)] for each in members],
        "datasets": list(datasets.values()),
        "rules": sorted(rules),
        "commands": list(dict.fromkeys([result.command for result in results])),
        "made_with": sorted({_listed(result.versions) for result in results}),
        "command_line": command_line(),
        "here": _listed(versions()),
    }


def _seed(member: ModelResults) -> str:
    return "–" if member.seed is None else str(member.seed)


def _listed(installed: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in installed.items())


def _expectations(expected: ExpectationFile, rows: Sequence[Row]) -> list[list[str]]:
    lines = []
    for each in compare_expectations(expected, rows):
        digits = 3 if each.expectation.figure == "isotropy" else 2
        measured = "–" if each.measured is None else f"{each.measured:.{digits}f}"
        measured += f" ± {each.deviation:.{digits}f}" if each.deviation is not None else ""
        stated = f"{each.expectation.expected:g} ± {each.expectation.within:g}"
        outcome = f"{each.verdict}: {each.over or each.why}"
        lines.append([each.expectation.row, each.expectation.figure, stated, measured, outcome])
    return lines
