"""The cost table: what training each arm took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ragcun_cli.errors import UsageError
from ragcun_cli.report.rows import Row
from ragcun_cli.report.runs import RecordedRun, find_run
from ragcun_cli.report.table import MISSING, Cell, FigureColumn, ResultTable, TableRow, mean_cell, seeds_sentence


def build_cost(
    rows: Sequence[Row], runs: Path, dollars_per_hour: float | None, options: Mapping[str, object]
) -> ResultTable:
    """Build a table of trainable parameters, triples per second, device hours, and dollars if a price is given.

    Raises:
        UsageError: if no run is found.
    """
    found = {
        row.name: members
        for row in rows
        if len(members := [run for member in row.members if (run := find_run(member, runs)) is not None])
        == len(row.members)
    }
    if not found:
        raise UsageError(
            f"--runs {runs}: has none of the models' run folders",
            "Their environment.json and speed.jsonl say what training took; name the folder that has them.",
        )
    priced = dollars_per_hour is not None
    known = [hours for members in found.values() for run in members if (hours := run.device_hours()) is not None]
    longest = max(known, default=0.0)
    unit, units = ("device-hours", 1.0) if longest >= 1 else ("device-minutes", 60.0)
    columns = [
        FigureColumn("trainable parameters (M)"),
        FigureColumn("triples/s", 1),
        FigureColumn("devices", 0),
        FigureColumn(unit, 2),
    ]
    columns += [FigureColumn("dollars")] if priced else []
    trained = [row for row in rows if row.trained and row.first.entry.transform == "none"]
    price = f"; at {dollars_per_hour:g} dollars per device-hour" if priced else ""
    caption = f"Cost of training: time spent on steps, without dev scores and saving, over all devices{price}."
    missing = [row.name for row in trained if row.name not in found]
    notes = [f"No run folder was found for: {', '.join(missing)}."] if missing else []
    mixed = [name for name, members in found.items() if len({run.device for run in members}) > 1]
    if mixed:
        notes.append(f"Trained on several kinds of device: {', '.join(mixed)}; their times mix these devices.")
    return ResultTable(
        caption=" ".join(part for part in (caption, seeds_sentence(rows)) if part),
        notes=tuple(notes),
        marks="",
        stubs=("model", "on"),
        columns=tuple(columns),
        rows=tuple(_line(row, found.get(row.name), dollars_per_hour, units, len(columns)) for row in trained),
        options=dict(options),
    )


def _line(
    row: Row, members: Sequence[RecordedRun] | None, dollars_per_hour: float | None, units: float, columns: int
) -> TableRow:
    return TableRow((row.label, _device(members)), _cells(members, dollars_per_hour, units, columns))


def _device(members: Sequence[RecordedRun] | None) -> str:
    return ", ".join(sorted({run.device for run in members})) if members else "–"


def _cells(
    members: Sequence[RecordedRun] | None, dollars_per_hour: float | None, units: float, columns: int
) -> tuple[Cell, ...]:
    """The cells of one row. units: how many time units an hour has."""
    if members is None:
        return (MISSING,) * columns
    sources = [run.run_id for run in members]

    def mean(values: Sequence[float | None]) -> Cell:
        present = [value for value in values if value is not None]
        return mean_cell(present, sources) if len(present) == len(values) else MISSING

    hours = [run.device_hours() for run in members]
    cells = [
        _of_all([run.trainable_parameters / 1e6 for run in members], sources),
        mean([run.triples_per_second() for run in members]),
        _of_all([float(run.devices) for run in members], sources),
        mean([None if each is None else each * units for each in hours]),
    ]
    if dollars_per_hour is not None:
        cells.append(mean([None if each is None else each * dollars_per_hour for each in hours]))
    return tuple(cells)


def _of_all(values: Sequence[float], sources: Sequence[str]) -> Cell:
    """A cell for what is not averaged; missing if seeds differ in it."""
    return Cell(values[0], None, len(values), sources=tuple(sources)) if len(set(values)) == 1 else MISSING
