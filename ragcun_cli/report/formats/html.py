"""A table as unstyled HTML, for a page that has its own style."""

from __future__ import annotations

from html import escape

from ragcun_cli.report.table import Cell, FigureColumn, ResultTable, origin_line

MISSING = "–"


def to_html(table: ResultTable) -> str:
    """Write the table as HTML; `data-value` holds each unrounded figure, for sorting."""
    head = "".join(f'<th scope="col">{escape(stub)}</th>' for stub in table.stubs)
    head += "".join(f'<th scope="col" class="figure">{escape(column.label)}</th>' for column in table.columns)
    lines = [
        f"<!-- {origin_line(table)} -->",
        "<table>",
        f"<caption>{escape(' '.join(part for part in (table.caption, table.marks) if part))}</caption>",
        f"<thead><tr>{head}</tr></thead>",
        "<tbody>",
    ]
    lines += html_rows(table)
    lines += ["</tbody>", "</table>", *(f'<p class="note">{escape(note)}</p>' for note in table.notes)]
    return "\n".join(lines) + "\n"


def html_rows(table: ResultTable) -> list[str]:
    """One line for each row."""
    lines = []
    for row in table.rows:
        stubs = "".join(f'<th scope="row">{escape(stub)}</th>' for stub in row.stubs)
        lines.append(f"<tr>{stubs}{''.join(map(_cell, row.cells, table.columns))}</tr>")
    return lines


def _cell(cell: Cell, column: FigureColumn) -> str:
    text = cell.printed(column.digits)
    if text is None:
        return f'<td class="figure">{MISSING}</td>'
    text = f"<strong>{text}</strong>" if cell.best else f"<u>{text}</u>" if cell.second else text
    deviation = cell.printed_deviation(column.digits)
    text += f' <span class="spread">± {deviation}</span>' if deviation is not None else ""
    text += f"<sup>{cell.mark}</sup>" if cell.mark else ""
    return f'<td class="figure" data-value="{cell.value!r}">{text}</td>'
