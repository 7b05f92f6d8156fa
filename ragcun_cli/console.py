"""The only module that uses rich. Results go to stdout, everything else to stderr.

rich is imported inside the functions that need it, so importing this module is cheap.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ragcun_cli.environment import QUIET
from ragcun_cli.errors import RagcunError
from ragcun_cli.quantities import megabytes
from ragcun_cli.secrets import redacted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.progress import Progress, ProgressColumn, TaskID


def result_console() -> Console:
    """Return the console for results: stdout."""
    from rich.console import Console

    return Console()


def message_console() -> Console:
    """Return the console for everything else: stderr."""
    from rich.console import Console

    return Console(stderr=True)


def visible(text: str) -> str:
    """Escape control characters of a text from elsewhere, but for line breaks and tabs: on a terminal they could move
    the cursor, set the clipboard or change the title."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else _escaped(sign) for sign in text)


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii")


def print_text(text: str) -> None:
    """Print lines for a reader; characters missing from the terminal's encoding become escapes."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def print_document(text: str) -> None:
    """Print LaTeX, CSV, YAML or other input for a program, as UTF-8 whatever the terminal's encoding."""
    if _knows_all_characters() or not isinstance(sys.stdout, io.TextIOWrapper):
        print_text(text)
        return
    encoding, errors = sys.stdout.encoding, sys.stdout.errors  # `reconfigure` would reset errors to strict
    sys.stdout.reconfigure(encoding="utf-8", errors=errors)
    print_text(text)
    sys.stdout.reconfigure(encoding=encoding, errors=errors)


def _knows_all_characters() -> bool:
    return codecs.lookup(sys.stdout.encoding or "ascii").name in ("utf-8", "utf-16", "utf-32")


def print_styled(text: str) -> None:
    """Print a sentence with rich markup on stdout, coloured only on a terminal."""
    result_console().print(text, highlight=False, soft_wrap=not result_console().is_terminal)


def print_paragraphs(paragraphs: Sequence[str]) -> None:
    """Print each sentence as a paragraph, wrapped to the terminal's width if there is one."""
    console = result_console()
    if console.is_terminal:
        paragraphs = [textwrap.fill(each, console.width) for each in paragraphs]
    print_text("\n\n".join(paragraphs))


def print_entries(lines: Sequence[str], indent: int) -> None:
    """Print lines of a name and, from column `indent`, its text, wrapped to the terminal's width if there is one."""
    console = result_console()
    if console.is_terminal:
        margin = " " * indent
        lines = [
            textwrap.fill(line, console.width, subsequent_indent=margin, break_on_hyphens=False) if line else line
            for line in lines
        ]
    print_text("\n".join(lines))


def print_json(content: Any) -> None:
    """Print a result as JSON."""
    print_text(json.dumps(content, indent=2, ensure_ascii=not _knows_all_characters()))


def duration(seconds: float) -> str:
    """Format seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def is_quiet() -> bool:
    """Return whether the user wants only results and errors."""
    return bool(os.environ.get(QUIET))


def note(message: str) -> None:
    """Print one line on stderr, so that a piped result stays clean. With `--quiet`, print nothing."""
    if is_quiet():
        return
    message_console().print(visible(redacted(message)), highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def saying_if_interrupted(sentence: str) -> Iterator[None]:
    """On Ctrl-C, say what is kept and how to continue."""
    try:
        yield
    except KeyboardInterrupt:
        note(sentence)
        raise


def print_error(error: RagcunError) -> None:
    """Print a panel on stderr that says what is wrong and how to fix it."""
    from rich.panel import Panel
    from rich.text import Text

    body = Text(visible(redacted(error.message)))
    if error.hint:
        body.append("\n\n" + visible(redacted(error.hint)), style="dim")
    message_console().print(Panel(body, title=error.title, title_align="left", border_style="red", highlight=False))


def print_error_json(error: RagcunError) -> None:
    """Print the error as one JSON object on stdout, for `--json`."""
    said = {"error": redacted(error.message), "hint": redacted(error.hint)}
    print_json({**said, "kind": error.title, "exit_code": int(error.exit_code)})


@dataclass(frozen=True)
class Column:
    """A table column: its header, whether its cells are numbers (right-aligned), and whether they may wrap."""

    header: str
    numeric: bool = False
    wraps: bool = False


def plain(text: str) -> str:
    """Escape a name for a table cell, so that its brackets are not read as markup."""
    from rich.markup import escape

    return escape(text)


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], title: str = "", caption: str = "") -> None:
    """Print a table on stdout. Cells may contain rich markup."""
    from rich.table import Table

    table = Table(title=title or None, caption=caption or None, title_justify="left", caption_justify="left")
    for column in columns:
        table.add_column(
            column.header, justify="right" if column.numeric else "left", no_wrap=not column.wraps, overflow="fold"
        )
    for row in rows:
        table.add_row(*row)
    console = result_console()
    # A results table is never truncated: on a narrow terminal its lines overrun the edge instead.
    unbounded = console.options.update_width(UNBOUNDED)
    measured = console.measure(table, options=unbounded)
    least = measured.minimum if any(column.wraps for column in columns) else measured.maximum
    console.width = max(console.width, least)
    console.print(table)


class _Drawn:
    """A display that redraws itself on a terminal while a `with` block runs. Without a terminal `_live` is None."""

    _live: Live | Progress | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()


class LiveTable(_Drawn):
    """A table on stderr that is redrawn as its rows change. Without a terminal: a line for each change
    of a row's first two cells, and an occasional line for each row that changes in other ways.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = columns
        self._live: Live | None = None
        self._shown: dict[str, list[str]] = {}
        self._last_lines = time.monotonic()

    def __enter__(self) -> LiveTable:
        console = message_console()
        if console.is_terminal and not is_quiet():
            from rich.live import Live

            self._live = Live(console=console, auto_refresh=False)
            self._live.start()
        return self

    def show(self, rows: Sequence[list[str]]) -> None:
        """Show the current rows. A row's first cell is its name, its second its state."""
        if self._live is not None:
            from rich.table import Table

            table = Table(*self.columns)
            for row in rows:
                table.add_row(*map(plain, row))
            self._live.update(table, refresh=True)
            return
        overdue = time.monotonic() - self._last_lines > SECONDS_BETWEEN_TABLE_LINES
        for row in rows:
            before = self._shown.get(row[0])
            if before is None and row[1] == WAITING:
                continue  # ninety waiting rows are not news
            if before == row or (before is not None and before[1] == row[1] and not overdue):
                continue
            self._shown[row[0]] = row
            cells = (f"{name} {cell}" for name, cell in zip(self.columns[2:], row[2:], strict=True) if cell)
            note("  ".join([f"{row[0]}: {row[1]}", *cells]))
        if overdue:
            self._last_lines = time.monotonic()


BAR_WIDTH = 12
UNBOUNDED = 100_000  # characters; wider than any table
SECONDS_BETWEEN_LINES = 10.0  # for progress that is not shown on a terminal
SECONDS_BETWEEN_TABLE_LINES = 10.0
WAITING = "waiting"  # a row's second cell until something happens to it


class StepProgress(_Drawn):
    """Progress of a loop of known length: a live bar on a terminal, otherwise an occasional plain line.

    `line_every`: units between plain lines; 0 prints a line every ten seconds and one at the end.
    """

    def __init__(self, label: str, total: int, unit: str, done: int = 0, line_every: int = 0) -> None:
        self.label = label
        self.total = total
        self.unit = unit
        self.line_every = line_every
        self._done = self._done_before = done
        self._started = self._last_line = time.monotonic()
        self._live: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> StepProgress:
        console = message_console()
        if console.is_terminal and not is_quiet() and self.total > 0:
            from rich.progress import Progress

            self._live = Progress(*_bar_columns(self.unit), console=console)
            self._task = self._live.add_task(self.label, total=self.total, completed=self._done, figures="")
            self._live.start()
        return self

    def advance(self, count: int = 1, figures: Mapping[str, str] | None = None) -> None:
        """Record that `count` more are done; `figures` appear beside the bar or in the line."""
        before, self._done = self._done, self._done + count
        if self._live is not None and self._task is not None:
            fixed = len(f"{self.label}  {self.total}/{self.total} {self.unit} 0:00:00 left ") + BAR_WIDTH
            shown = _fitting(figures or {}, self._live.console.width - fixed)
            self._live.update(self._task, completed=self._done, figures=shown)
        elif self._line_is_due(before):
            self._last_line = time.monotonic()
            shown = "  ".join(f"{name} {value}" for name, value in (figures or {}).items())
            note(f"{self.label}: {self.unit} {self._done}/{self.total}  {shown}{self._time_left()}".rstrip())

    def _line_is_due(self, before: int) -> bool:
        if self._done >= self.total:
            return True
        if self.line_every:
            return self._done // self.line_every > before // self.line_every
        return time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES

    def _time_left(self) -> str:
        done_here, left = self._done - self._done_before, self.total - self._done
        if left <= 0 or done_here <= 0:
            return ""
        return f"  {duration((time.monotonic() - self._started) / done_here * left)} left"


class ByteProgress(_Drawn):
    """Progress of several simultaneous downloads: a bar for each on a terminal, otherwise an occasional line.

    Threads may call `update` and `finish`; `refresh` is for the thread that waits for them.
    """

    def __init__(self, label: str, sizes: Mapping[str, int | None]) -> None:
        self.label = label
        self._sizes = dict(sizes)
        self._here: dict[str, int] = {}
        self._began: dict[str, int] = {}  # bytes present at the start, which do not count towards the rate
        self._finished: set[str] = set()
        self._started = self._last_line = time.monotonic()
        self._live: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> ByteProgress:
        console = message_console()
        if console.is_terminal and not is_quiet():
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
            from rich.progress import TransferSpeedColumn as RateColumn

            self._live = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=BAR_WIDTH),
                DownloadColumn(),
                RateColumn(),
                TimeRemainingColumn(),
                console=console,
            )
            self._live.start()
        return self

    def update(self, name: str, here: int, whole: int | None) -> None:
        """Record that `here` bytes of a file have arrived."""
        self._sizes[name] = whole
        self._began.setdefault(name, here)
        self._here[name] = here
        if self._live is not None:
            if name not in self._tasks:
                self._tasks[name] = self._live.add_task(name, total=whole, completed=here)
            self._live.update(self._tasks[name], completed=here, total=whole)

    def finish(self, name: str) -> None:
        """Record that a file is complete and has its final name."""
        self._finished.add(name)
        if self._live is None:
            note(f"{name}: downloaded and verified, {megabytes(self._here.get(name, self._sizes.get(name) or 0))}.")

    def refresh(self) -> None:
        """Print the progress of all files, if a line is due."""
        if self._live is not None or time.monotonic() - self._last_line < SECONDS_BETWEEN_LINES:
            return
        self._last_line = time.monotonic()
        here, began = sum(self._here.values()), sum(self._began.values())
        whole = sum(size or 0 for size in self._sizes.values())
        rate = (here - began) / (time.monotonic() - self._started)
        left = f", {duration((whole - here) / rate)} left" if rate > 0 and whole > here else ""
        files = f"{len(self._finished)} of {len(self._sizes)} files"
        note(f"{self.label}: {files}, {megabytes(here)} of {megabytes(whole)}, {megabytes(rate)}/s{left}")


def _bar_columns(unit: str) -> Sequence[ProgressColumn]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    return (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=BAR_WIDTH),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        TextColumn("left"),
        TextColumn("{task.fields[figures]}", markup=False),
    )


def _fitting(figures: Mapping[str, str], width: int) -> str:
    """Return the figures that fit whole into `width` characters; rich would shorten every column instead."""
    shown = ""
    for name, value in figures.items():
        longer = f"{shown}  {name} {value}".strip()
        if len(longer) > width:
            break
        shown = longer
    return shown
