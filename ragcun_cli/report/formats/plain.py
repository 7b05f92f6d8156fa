"""Unrounded figures, as CSV for spreadsheets and JSON for programs."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from ragcun_cli.console import visible
from ragcun_cli.report.table import BETTER, WORSE, ResultTable

FORMULA = ("=", "+", "-", "@")
MARKS = {BETTER: "better", WORSE: "worse"}


def to_csv(table: ResultTable) -> str:
    """Write unrounded figures as CSV; a missing one is an empty field. Several seeds add a column of deviations."""
    spread = [any(row.cells[place].deviation is not None for row in table.rows) for place in range(len(table.columns))]
    head = list(table.stubs)
    for column, has_spread in zip(table.columns, spread, strict=True):
        head += [column.label, f"{column.label} std"] if has_spread else [column.label]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([_as_text(name) for name in head])
    for row in table.rows:
        fields = [_as_text(name) for name in row.stubs]
        for cell, has_spread in zip(row.cells, spread, strict=True):
            figures = [cell.value, cell.deviation] if has_spread else [cell.value]
            fields += ["" if figure is None else repr(figure) for figure in figures]
        writer.writerow(fields)
    return stream.getvalue()


def _as_text(name: str) -> str:
    """Return a name that no spreadsheet takes for a formula, which it would execute, and no terminal for a command."""
    shown = visible(name).replace("\n", " ").replace("\t", " ")
    return f"'{shown}" if shown.startswith(FORMULA) else shown


def to_json(table: ResultTable) -> str:
    """Write unrounded figures as JSON; null if missing. `rows` has only figures, `cells` all that is known of each."""
    labels = [column.label for column in table.columns]
    rows, cells = [], []
    for row in table.rows:
        stubs: dict[str, Any] = dict(zip(table.stubs, row.stubs, strict=True))
        rows.append({**stubs, **{label: cell.value for label, cell in zip(labels, row.cells, strict=True)}})
        cells.append(
            {
                label: {
                    "value": cell.value,
                    "deviation": cell.deviation,
                    "seeds": cell.seeds,
                    "against_baseline": MARKS.get(cell.mark),
                    "sources": list(cell.sources),
                }
                for label, cell in zip(labels, row.cells, strict=True)
            }
        )
    content = {
        "caption": table.caption,
        "notes": list(table.notes),
        "options": table.options,
        "provenance": table.provenance,
        "rows": rows,
        "cells": cells,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
