"""The page: claims first, then the figures behind them, then where everything comes from."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

from ragcun_cli.environment import command_line, versions
from ragcun_cli.errors import UsageError
from ragcun_cli.evaluate.datasets import Dataset
from ragcun_cli.report.building import TableOptions, build_table
from ragcun_cli.report.claims import isotropy_sentence, sentence
from ragcun_cli.report.collect import ModelResults
from ragcun_cli.report.expectations import ISOTROPY_NOTE, ExpectationFile, compare_expectations
from ragcun_cli.report.figures.drawing import Drawn, OmittedFigure, draw_all
from ragcun_cli.report.figures.style import saved
from ragcun_cli.report.formats.html import to_html
from ragcun_cli.report.material import Material
from ragcun_cli.report.page.examples import Example, Extremes, ShownPassage, find_extremes
from ragcun_cli.report.rows import Row, no_baseline
from ragcun_cli.report.staleness import stale_sentences
from ragcun_cli.report.table import metric_label
from ragcun_cli.report.texts import find_texts
from ragcun_cli.results.dataset_result import DatasetResult

HERE = Path(__file__).parent
LONGEST_TEXT = 400  # characters of a passage
# Nothing may be fetched: a browser itself refuses what a mistake here would ask for.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Page:
    """left_out: what is not in it, and why."""

    html: str
    left_out: list[str]


def build_page(material: Material, results: Path, data_dir: Path, expected: ExpectationFile) -> Page:
    """
    Raises:
        UsageError: if a flag asks for what is not there.
        DataError: if results cannot be read or compared.
    """
    drawn, left = draw_all(material)
    left_out = [f"{each.name}: {each.why}." for each in left]
    options = _options(material)
    sections = [
        _section("What the results show", _answers(material, left_out)),
        _section("Scores", _table(results, options("scores"), left_out)),
        _section("Each comparison in a sentence", _claims(material)),
        _section("Figures", _figures(drawn, left)),
        _section("The greatest wins and losses", _examples(material, data_dir, left_out)),
        _section("Shape of the embeddings", _table(results, options("geometry"), left_out)),
        _section("Smaller embeddings", _table(results, options("robustness"), left_out)),
        _section("Cost", _table(results, options("cost"), left_out)),
        _section("Where this comes from", _provenance(material)),
        _section("What was expected", _expectations(expected, material.every)),
    ]
    title = f"Isotropy and retrieval: {metric_label(material.metric)} of {len(material.rows)} systems"
    html = "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{(HERE / 'page.css').read_text(encoding='utf-8')}</style>",
            "</head>",
            "<body>",
            f"<h1>{escape(title)}</h1>",
            f'<p class="quiet">{escape(_subtitle(material))}</p>',
            *sections,
            f"<script>\n{(HERE / 'page.js').read_text(encoding='utf-8')}</script>",
            "</body>",
            "</html>",
        ]
    )
    return Page(html + "\n", left_out)


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def _subtitle(material: Material) -> str:
    against = f"compared with {material.baseline.label}" if material.baseline is not None else "without a baseline"
    return f"{', '.join(row.label for row in material.rows)} on {', '.join(material.datasets)}, {against}."


def _options(material: Material) -> Callable[[str], TableOptions]:
    """The options of each preset's table, over the page's rows and datasets."""

    shared = TableOptions(
        datasets=tuple(material.datasets) if material.named else (),
        rows=tuple(row.name for row in material.rows),
        runs=str(material.runs),
    )

    def of(preset: str) -> TableOptions:
        if preset == "cost":
            return replace(shared, preset=preset, datasets=())
        if preset != "scores":
            return replace(shared, preset=preset)
        baseline = None if material.baseline is None else material.baseline.name
        return replace(
            shared,
            metric=material.metric,
            baseline=baseline,
            correction=material.correction,
            primary=material.primary,
        )

    return of


def _answers(material: Material, left_out: list[str]) -> str:
    """One sentence for each primary comparison, or why there is none; before them, results that no longer hold."""
    stale = stale_sentences(each for row in material.rows for each in row.stale)
    banner = "".join(f'<p class="stale">{escape(each)}</p>' for each in stale)
    if material.claims is None:
        why = "there is nothing to compare" if material.baseline is not None else no_baseline(material.every)
        left_out.append(f"claims: {why}.")
        return f"{banner}<p>Nothing is claimed: {escape(why)}.</p>"
    return banner + _claim_list([(each.verdict, each.text) for each in material.claims.headlines()])


def _claims(material: Material) -> str:
    """Every comparison, folded by kind and row."""
    if material.claims is None:
        return "<p>There is none.</p>"
    stated = material.claims
    of_averages = [(each.verdict, sentence(each)) for each in stated.averages]
    parts = [
        _folded("Other rows", [(each.verdict, each.text) for each in stated.others()]),
        _folded("Averages", of_averages),
        _folded("Isotropy", [(each.verdict, isotropy_sentence(each)) for each in stated.isotropy]),
    ]
    for row in dict.fromkeys(each.row for each in stated.datasets):
        items = [(each.verdict, sentence(each)) for each in stated.datasets if each.row == row]
        parts.append(_folded(f"{row} against {stated.baseline.name}, by dataset", items))
    parts.append(_folded("Remarks", [("", remark) for remark in stated.remarks]))
    return "\n".join([*filter(None, parts), f'<p class="quiet">{escape(stated.preamble)}</p>'])


def _folded(summary: str, items: Sequence[tuple[str, str]]) -> str:
    """Nothing for nothing."""
    if not items:
        return ""
    return f"<details><summary>{escape(summary)} ({len(items)})</summary>{_claim_list(items)}</details>"


def _claim_list(items: Sequence[tuple[str, str]]) -> str:
    """Verdicts and sentences."""
    lines = (f'<li class="{escape(verdict.split(" ")[0])}">{escape(text)}</li>' for verdict, text in items)
    return f'<ul class="claims">{"".join(lines)}</ul>'


def _table(results: Path, options: TableOptions, left_out: list[str]) -> str:
    try:
        table = build_table(results, options)
    except UsageError as error:
        left_out.append(f"{options.preset}: {error.message}.")
        return f"<p>Not known: {escape(error.message)}.</p>"
    figures, _, notes = to_html(table).partition("</table>\n")
    caption = escape(" ".join(part for part in (table.caption, table.marks) if part))
    # What is read stays in place where the table itself must be moved sideways.
    figures = figures.replace(f"<caption>{caption}</caption>\n", "")
    return (
        f'<div class="scroll">{figures}</table></div>\n<p class="quiet">{caption}</p>\n{notes}'
        f'<p class="quiet">Provenance {table.provenance}.</p>'
    )


def _figures(drawn: Sequence[Drawn], left: Sequence[OmittedFigure]) -> str:
    parts = []
    for each in drawn:
        picture = base64.b64encode(saved(each.figure, "svg")).decode()
        image = f'<img alt="Figure: {escape(each.name)}" src="data:image/svg+xml;base64,{picture}">'
        caption = f"<figcaption>{escape(each.caption)}</figcaption>"
        parts.append(f'<figure><div class="scroll">{image}</div>{caption}</figure>')
    parts += [f'<p class="quiet">{escape(each.name)} is not drawn: {escape(each.why)}.</p>' for each in left]
    return "\n".join(parts)


def _examples(material: Material, data_dir: Path, left_out: list[str]) -> str:
    baseline = material.baseline
    arms = [row for row in material.rows if row.trained and row is not baseline and _as_trained(row)]
    if baseline is None or not arms:
        return "<p>There is no arm to compare with a baseline.</p>"
    parts = [
        f'<p class="quiet">By the difference in {escape(metric_label(material.metric))}, means over seeds; ranks are '
        "of the first seeds. Chosen by size alone, among equals by lot: they show what a difference looks like, not "
        "how large it is.</p>"
    ]
    absent: set[str] = set()
    texts: dict[str, Dataset | None] = {}

    def texts_of(result: DatasetResult) -> Dataset | None:
        if result.name not in texts:
            texts[result.name] = find_texts(result, data_dir)
        return texts[result.name]

    for row in arms:
        extremes = find_extremes(row, baseline, material.datasets, material.metric, texts_of)
        absent.update(extremes.absent)
        parts.append(_extremes(extremes, baseline))
    for name in sorted(absent):
        left_out.append(f"texts of {name}: the dataset is not in {data_dir}/ as it was scored (--data-dir).")
    return "\n".join(parts)


def _as_trained(row: Row) -> bool:
    return row.first.entry.is_plain


def _extremes(extremes: Extremes, baseline: Row) -> str:
    kinds = (("wins", "won by", extremes.wins), ("losses", "lost by", extremes.losses))
    return "\n".join(
        f"<details><summary>{len(examples)} greatest {kind} of {escape(extremes.row)} against {escape(baseline.name)}"
        f"</summary>{''.join(_example(each, verb, extremes.row, baseline.name) for each in examples)}</details>"
        for kind, verb, examples in kinds
    )


def _example(example: Example, verb: str, row: str, baseline: str) -> str:
    question = escape(example.text) if example.text is not None else "(its text is not here)"
    passages = "".join(_passage(each, row, baseline) for each in example.passages)
    return (
        f'<div class="example"><p><span class="tag">{escape(example.dataset)} {escape(example.query_id)}</span>'
        f'<span class="tag">{verb} {abs(example.difference):.3f}</span> <strong>{question}</strong></p>{passages}</div>'
    )


def _passage(passage: ShownPassage, row: str, baseline: str) -> str:
    by_baseline, by_row = ("not found" if rank is None else f"rank {rank}" for rank in passage.ranks)
    text = escape(_shortened(passage.text)) if passage.text is not None else f"passage {escape(passage.passage_id)}"
    relevant = '<span class="tag relevant">relevant</span>' if passage.relevant else ""
    return (
        f'<p class="passage">{relevant}<span class="tag">{escape(baseline)}: {by_baseline}</span>'
        f'<span class="tag">{escape(row)}: {by_row}</span>{text}</p>'
    )


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT].rsplit(" ", 1)[0] + " …"


def _provenance(material: Material) -> str:
    rows = list(material.rows)
    if material.baseline is not None and material.baseline not in rows:
        rows.append(material.baseline)
    models = [
        [member.name, str(member.entry.identity), str(member.entry.path), _seed(member)]
        for row in rows
        for member in row.members
    ]
    results = [result for row in rows for member in row.members for result in member.datasets.values()
               if result.name in material.datasets]  # fmt: skip
    datasets = {result.name: [result.name, result.split, str(result.queries), result.sha256] for result in results}
    rules = {
        f"{result.name}: " + ", ".join(f"{key} {value}" for key, value in result.rules_of_column.items())
        for result in results
    }
    commands = list(dict.fromkeys([result.command for result in results]))
    made_with = sorted({", ".join(f"{name} {value}" for name, value in result.versions.items()) for result in results})
    here = ", ".join(f"{name} {value}" for name, value in versions().items())
    return "\n".join(
        [
            _plain_table(("model", "weights", "from", "seed"), models),
            _plain_table(("dataset", "split", "queries", "sha256 of texts and judgements"), list(datasets.values())),
            "<details><summary>Rules of scoring</summary><ul>",
            *(f"<li>{escape(rule)}</li>" for rule in sorted(rules)),
            "</ul></details>",
            "<p>Scored by:</p><ul>",
            *(f"<li><code>{escape(command)}</code></li>" for command in commands),
            "</ul>",
            *(f'<p class="quiet">Scored with {escape(each)}.</p>' for each in made_with),
            f'<p class="quiet">This page: <code>{escape(command_line())}</code>, with {escape(here)}.</p>',
        ]
    )


def _seed(member: ModelResults) -> str:
    return "–" if member.seed is None else str(member.seed)


def _expectations(expected: ExpectationFile, rows: Sequence[Row]) -> str:
    state = "verified" if expected.verified else "never verified"
    lines = []
    for each in compare_expectations(expected, rows):
        digits = 3 if each.expectation.figure == "isotropy" else 2
        measured = "–" if each.measured is None else f"{each.measured:.{digits}f}"
        measured += f" ± {each.deviation:.{digits}f}" if each.deviation is not None else ""
        stated = f"{each.expectation.expected:g} ± {each.expectation.within:g}"
        outcome = f"{each.verdict}: {each.over or each.why}"
        lines.append([each.expectation.row, each.expectation.figure, stated, measured, outcome])
    return "\n".join(
        [
            f'<p class="quiet">Figures that people expect of this method, {state}. Source: {escape(expected.source)}. '
            f"{escape(ISOTROPY_NOTE)}</p>",
            _plain_table(("row", "figure", "expected", "measured", "outcome"), lines),
        ]
    )


def _plain_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    heads = "".join(f'<th scope="col">{escape(each)}</th>' for each in head)
    body = "\n".join("<tr>" + "".join(map(_plain_cell, row)) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def _plain_cell(text: str) -> str:
    """A number sorts as one."""
    value = f' data-value="{text}"' if text.isdecimal() else ""
    return f"<td{value}>{escape(text)}</td>"
