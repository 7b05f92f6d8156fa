"""A table as text: for a paper, a page, a spreadsheet or a program."""

from __future__ import annotations

from collections.abc import Callable

from ragcun_cli.report.formats.html import to_html
from ragcun_cli.report.formats.latex import to_latex
from ragcun_cli.report.formats.markdown import to_markdown
from ragcun_cli.report.formats.plain import to_csv, to_json
from ragcun_cli.report.table import ResultTable

FORMATS: dict[str, Callable[[ResultTable], str]] = {
    "latex": to_latex,
    "markdown": to_markdown,
    "html": to_html,
    "csv": to_csv,
    "json": to_json,
}
