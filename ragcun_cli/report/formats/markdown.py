"""A table as GitHub-flavoured Markdown."""

from __future__ import annotations

from ragcun_cli.report.table import Cell, FigureColumn, ResultTable, origin_line

MISSING = "–"


def to_markdown(table: ResultTable) -> str:
    """Write the table with the best in bold and the second underlined (by an HTML tag: Markdown has none)."""
    head = [*table.stubs, *(column.label for column in table.columns)]
    lines = [
        f"<!-- {origin_line(table)} -->",
        "",
        "| " + " | ".join(map(escape_markdown, head)) + " |",
        "| " + " | ".join(["---"] * len(table.stubs) + ["---:"] * len(table.columns)) + " |",
    ]
    lines += markdown_rows(table)
    lines += ["", escape_markdown(" ".join(part for part in (table.caption, table.marks) if part))]
    lines += [line for note in table.notes for line in ("", escape_markdown(note))]
    return "\n".join(lines) + "\n"


def markdown_rows(table: ResultTable) -> list[str]:
    """One line for each row."""
    lines = []
    for row in table.rows:
        cells = [*map(escape_markdown, row.stubs), *map(_cell, row.cells, table.columns)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cell(cell: Cell, column: FigureColumn) -> str:
    text = cell.printed(column.digits)
    if text is None:
        return MISSING
    text = f"**{text}**" if cell.best else f"<u>{text}</u>" if cell.second else text
    deviation = cell.printed_deviation(column.digits)
    return text + (f" ± {deviation}" if deviation is not None else "") + cell.mark


def escape_markdown(text: str) -> str:
    """Escape text so that Markdown prints it literally."""
    for character in "\\|*_`<>[]":
        text = text.replace(character, "\\" + character)
    return text
