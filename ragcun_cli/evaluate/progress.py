"""The table of a long evaluation: one row per model and dataset, with its rate, time left and, finally, score."""

from __future__ import annotations

import time
from types import TracebackType

from ragcun_cli.console import WAITING, LiveTable, duration
from ragcun_cli.results.isotropy import MeasuredIsotropy

COLUMNS = ("model on dataset", "state", "texts", "texts/s", "left", "nDCG@10", "IsoScore")
REFRESH_SECONDS = 0.5


class EvaluationTable:
    """A `with` block that shows the table on stderr."""

    def __init__(self, labels: list[str]) -> None:
        self._rows = {label: [label, WAITING, "", "", "", "", ""] for label in labels}
        self._table = LiveTable(COLUMNS)
        self._current = ""
        self._total = self._done = 0
        self._encoded_from = 0  # texts found in the cache at once do not count towards the rate
        self._started = self._shown = 0.0

    def __enter__(self) -> EvaluationTable:
        self._table.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._table.__exit__(kind, error, trace)

    def begin(self, label: str, texts: int) -> None:
        """Show that this row's texts are being encoded from now on."""
        self._current, self._total, self._done, self._encoded_from = label, texts, 0, 0
        self._started = time.monotonic()
        self._set("encoding", f"0/{texts}")

    def advance(self, texts: int) -> None:
        """Show that this many more texts are done."""
        seconds = time.monotonic() - self._started
        if not self._done and seconds < REFRESH_SECONDS:
            self._encoded_from = texts
        self._done += texts
        if time.monotonic() - self._shown < REFRESH_SECONDS:
            return
        rate = (self._done - self._encoded_from) / seconds if seconds > 0 else 0.0
        left = duration((self._total - self._done) / rate) if rate > 0 else ""
        self._set("encoding", f"{self._done}/{self._total}", f"{rate:.1f}", left)

    def searching(self, label: str) -> None:
        """Show that this row's texts are all encoded and being searched."""
        self._current = label
        self._started = time.monotonic()
        self._set("searching", f"{self._total}")

    def searched(self, share: float) -> None:
        """Show how much of the current search is done, from 0 to 1."""
        if time.monotonic() - self._shown >= REFRESH_SECONDS:
            seconds = time.monotonic() - self._started
            left = duration(seconds * (1 - share) / share) if share > 0 else ""
            self._set("searching", f"{100 * share:.0f} %", "", left)

    def finish(self, label: str, metrics: dict[str, float], isotropy: MeasuredIsotropy | None) -> None:
        """Show that the row's result is on disk."""
        self._current = label
        self._set("done", f"{self._total}", "", "", *_figures(metrics, isotropy))

    def keep(self, label: str, metrics: dict[str, float], isotropy: MeasuredIsotropy | None) -> None:
        """Show that the row's result existed before."""
        self._current = label
        self._set("kept", "", "", "", *_figures(metrics, isotropy))

    def _set(self, state: str, *cells: str) -> None:
        self._rows[self._current] = [self._current, state, *cells, *[""] * (len(COLUMNS) - 2 - len(cells))]
        self._shown = time.monotonic()
        self._table.show(list(self._rows.values()))


def _figures(metrics: dict[str, float], isotropy: MeasuredIsotropy | None) -> tuple[str, str]:
    isoscore = None if isotropy is None else isotropy.passages.isoscore
    return f"{metrics['ndcg@10']:.4f}" if metrics else "", "" if isoscore is None else f"{isoscore:.3f}"
