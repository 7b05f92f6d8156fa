"""The table as text for a paper, a page, a spreadsheet or a program."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable

from ragcun_cli.report.table import MARKS, Cell, ResultTable

MISSING = "–"


def to_markdown(table: ResultTable) -> str:
    """A GitHub table; best bold, second underlined (an HTML tag: Markdown has no underline)."""

    def shown(cell: Cell) -> str:
        text = cell.text or MISSING
        return f"**{text}**" if cell.best else f"<u>{text}</u>" if cell.second else text

    lines = [
        "| " + " | ".join(["model", *map(_escape_markdown, table.columns)]) + " |",
        "| --- |" + " ---: |" * len(table.columns),
    ]
    for model, row in zip(table.models, table.rows, strict=True):
        lines.append("| " + " | ".join([_escape_markdown(model), *map(shown, row)]) + " |")
    return "\n".join([*lines, "", _escape_markdown(f"{table.caption} {MARKS}")]) + "\n"


def to_latex(table: ResultTable) -> str:
    """A booktabs table; needs \\usepackage{booktabs}."""

    def shown(cell: Cell) -> str:
        text = cell.text or "--"
        return rf"\textbf{{{text}}}" if cell.best else rf"\underline{{{text}}}" if cell.second else text

    header = " & ".join(["Model", *map(_escape_latex, table.columns)])
    body = [
        " & ".join([_escape_latex(model), *map(shown, row)]) + r" \\"
        for model, row in zip(table.models, table.rows, strict=True)
    ]
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_escape_latex(f'{table.caption} {MARKS}')}}}",
        rf"  \begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"    \toprule",
        rf"    {header} \\",
        r"    \midrule",
        *(f"    {line}" for line in body),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def to_csv(table: ResultTable) -> str:
    """Plain figures, unrounded; a missing one is an empty field."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["model", *table.columns])
    for model, row in zip(table.models, table.rows, strict=True):
        writer.writerow([model, *("" if cell.value is None else repr(cell.value) for cell in row)])
    return stream.getvalue()


def to_json(table: ResultTable) -> str:
    """Figures as numbers, unrounded; null for a missing one."""
    rows = [
        {"model": model, **{name: cell.value for name, cell in zip(table.columns, row, strict=True)}}
        for model, row in zip(table.models, table.rows, strict=True)
    ]
    return json.dumps({"caption": table.caption, "rows": rows}, indent=2, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[ResultTable], str]] = {
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
    "json": to_json,
}


def _escape_markdown(text: str) -> str:
    for character in "\\|*_`<>":
        text = text.replace(character, "\\" + character)
    return text


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
