"""All claims about a set of results, in the order a reader wants them: averages, isotropy, single datasets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragcun_cli.errors import UsageError
from ragcun_cli.quantities import counted
from ragcun_cli.report.averages import averages_over, missing_of_beir
from ragcun_cli.report.collect import collect
from ragcun_cli.report.comparison import Comparison, ComparisonSettings, Shown, compare
from ragcun_cli.report.isotropy_comparison import IsotropyComparison, compare_isotropy
from ragcun_cli.report.rows import (
    DIFFERENCES,
    Row,
    choose_rows,
    contrast_with,
    differing,
    find_baseline,
    fold,
    no_baseline,
)
from ragcun_cli.report.scores import choose_datasets, known_datasets, require_metric
from ragcun_cli.report.selection import Selection, primary_rows
from ragcun_cli.report.sentences import isotropy_sentence, preamble, sentence
from ragcun_cli.report.staleness import MARK, stale_sentences
from ragcun_cli.report.statistics.corrections import require_correction
from ragcun_cli.report.table import metric_label

VERDICTS = ("better", "worse", "no difference shown", "exploratory")


@dataclass(frozen=True)
class Headline:
    """A row against the baseline in one sentence. verdict: decides its colour."""

    row: str
    verdict: str
    text: str


@dataclass(frozen=True)
class Claims:
    """Comparisons with the baseline, and what else a reader must know. Arms come before reference rows.

    primary: the rows of the primary comparisons, None if none is declared. reference: rows that are not arms as
    trained. contrasts: row -> how its recipe and scoring differ from the baseline's. stale: rows whose model has
    changed since.
    """

    preamble: str
    metric: str
    baseline: Row
    averages: list[Comparison]
    isotropy: list[IsotropyComparison]
    datasets: list[Comparison]
    remarks: list[str]
    primary: tuple[str, ...] | None
    reference: frozenset[str]
    contrasts: dict[str, str]
    stale: frozenset[str] = frozenset()

    def headlines(self) -> list[Headline]:
        """One sentence for each primary comparison; if none is declared, for each arm as it was trained."""
        rows = self._rows()
        chosen = self.primary if self.primary is not None else [row for row in rows if row not in self.reference]
        return [self._headline(row) for row in (chosen or rows) if row in rows]

    def others(self) -> list[Headline]:
        """The same for the other rows."""
        first = {each.row for each in self.headlines()}
        return [self._headline(row) for row in self._rows() if row not in first]

    def _rows(self) -> list[str]:
        of_scores = [each.row for each in (*self.datasets, *self.averages)]
        return list(dict.fromkeys([*of_scores, *(each.row for each in self.isotropy)]))

    def _headline(self, row: str) -> Headline:
        isotropy = next((each.verdict for each in self.isotropy if each.row == row), None)
        parts = [] if isotropy in (None, "exploratory") else [f"isotropy: {isotropy}"]
        averages = [each for each in self.averages if each.row == row]
        parts += [f"{metric_label(self.metric)}, {each.where}: {_found(each)}" for each in averages]
        of_datasets = [each for each in self.datasets if each.row == row]
        verdicts = Counter(each.verdict for each in of_datasets)
        if len(of_datasets) == 1:
            parts.append(f"{metric_label(self.metric)} on {of_datasets[0].scored_on}: {_found(of_datasets[0])}")
        elif verdicts:
            shown = _told(verdicts)
            parts.append(f"{metric_label(self.metric)} on {counted(sum(verdicts.values()), 'dataset')}: {shown}")
        if any(each.trained and each.over_seeds is None for each in (*of_datasets, *averages)):
            parts.append("One seed: seed variance unknown")
        if contrast := self.contrasts.get(row):
            parts.append(f"It differs in {contrast}")
        text = f"{self.label(row)} against {self.label(self.baseline.name)}. {'. '.join(parts)}."
        return Headline(row, _overall([each.verdict for each in averages or of_datasets]), text)

    def label(self, row: str) -> str:
        """A row's name, marked if its model has changed since it was scored."""
        return f"{row}{MARK}" if row in self.stale else row

    def sentences(self) -> list[str]:
        """Headlines, then each comparison: averages, isotropy, datasets; then the remarks."""
        return [
            *(each.text for each in (*self.headlines(), *self.others())),
            *map(sentence, self.averages),
            *map(isotropy_sentence, self.isotropy),
            *map(sentence, self.datasets),
            *self.remarks,
        ]

    def entry(self) -> dict[str, Any]:
        """The claims as a dictionary, for JSON."""
        return {
            "how": self.preamble,
            "baseline": self.baseline.name,
            "primary": None if self.primary is None else list(self.primary),
            "headlines": [each.__dict__ for each in (*self.headlines(), *self.others())],
            "comparisons": [{"sentence": sentence(each), **each.entry()} for each in (*self.averages, *self.datasets)],
            "isotropy": [{"sentence": isotropy_sentence(each), **each.entry()} for each in self.isotropy],
            "remarks": self.remarks,
        }


def build_claims(results: Path, selection: Selection) -> Claims:
    """Read results and make every claim about them.

    Raises:
        UsageError: if there is no baseline, nothing to compare with it, or a flag names something that is not there.
        DataError: if results cannot be read or compared.
    """
    require_correction(selection.correction)
    every = fold(collect(results))
    against = find_baseline(every, selection.baseline)
    return claims_of_rows(every, choose_rows(every, selection.rows), against, selection)


def claims_of_rows(every: Sequence[Row], rows: Sequence[Row], baseline: Row | None, selection: Selection) -> Claims:
    """The same as `state` for rows already read: every row, and those chosen."""
    if baseline is None:
        raise UsageError(no_baseline(every), f"Choose one of {', '.join(row.name for row in rows)}.")
    metric, correction = selection.metric, selection.correction
    declared = primary_rows(selection.primary, every, baseline)
    if hidden := [name for name in declared or () if name not in [row.name for row in rows]]:
        raise UsageError(f"--primary: {hidden[0]} is not among --rows", "Add it to --rows, or do not declare it.")
    require_metric(every, metric)
    others = [row for row in rows if row is not baseline]
    if not others:
        raise UsageError(f"there is only {baseline.name}: nothing to compare it with", "Score another model.")
    chosen = choose_datasets([*rows, baseline], selection.datasets)
    averages = averages_over(chosen, named=bool(selection.datasets))
    shown = Shown(tuple(row.name for row in others), tuple(chosen), tuple(averages))
    known = known_datasets(every)
    made = compare(
        sorted(every, key=_for_reference), baseline, known, shown, ComparisonSettings(metric, correction, declared)
    )
    isotropy = compare_isotropy(sorted(every, key=_for_reference), baseline, chosen, correction, declared)
    return Claims(
        preamble=preamble(made, isotropy, correction, declared),
        metric=metric,
        baseline=baseline,
        averages=[each for each in made if each.is_average],
        isotropy=[each for each in isotropy if each.row in shown.rows],
        datasets=[each for each in made if not each.is_average],
        remarks=_remarks(others, baseline, chosen, averages != [], metric),
        primary=declared,
        reference=frozenset(row.name for row in every if _for_reference(row)),
        contrasts={row.name: contrast_with(row, baseline) for row in others},
        stale=frozenset(row.name for row in (*others, baseline) if row.is_stale),
    )


def _told(verdicts: Counter[str]) -> str:
    """Sum up the verdicts on several datasets."""
    if len(verdicts) > 1:
        return ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in VERDICTS if verdicts[verdict])
    (verdict,) = verdicts
    return f"{verdict} on {'any' if verdict.startswith('no ') else 'each'}"


def _found(comparison: Comparison) -> str:
    """The verdict, with the difference in points."""
    points = f"{100 * comparison.difference:+.2f}"
    return f"{comparison.verdict} ({points})"


def _overall(verdicts: Sequence[str]) -> str:
    """Combine several verdicts: if they do not all point the same way, no difference is shown."""
    claimed = {each for each in verdicts if each in ("better", "worse")}
    if len(claimed) == 1:
        return claimed.pop()
    return "exploratory" if verdicts and set(verdicts) == {"exploratory"} else "no difference shown"


def _remarks(
    others: Sequence[Row], baseline: Row, datasets: Sequence[str], has_averages: bool, metric: str
) -> list[str]:
    """Remarks on what a reader might otherwise miss."""
    remarks = stale_sentences(each for row in (*others, baseline) for each in row.stale)
    if not has_averages and len(datasets) > 1:
        remarks.append(
            missing_of_beir(known_datasets([*others, baseline])) or "No average: name the sets with --datasets."
        )
    once = [row.name for row in (*others, baseline) if row.trained and len(row.members) == 1]
    if once:
        remarks.append(
            f"Trained with one seed: {', '.join(once)}. Claims about these hold for the models at hand, not for how "
            "they were trained; use at least three seeds."
        )
    rows_without: dict[tuple[str, ...], list[str]] = {}  # rows without an IsoScore, by dataset
    for row in others:
        lacking = [name for name in datasets if not (row.scores(name, metric) and baseline.scores(name, metric))]
        if lacking:
            remarks.append(f"{row.name} is not compared on {', '.join(lacking)}: not all seeds of both were scored.")
        unmeasured = tuple(name for name in datasets if not (row.isoscores(name) and baseline.isoscores(name)))
        if unmeasured:
            rows_without.setdefault(unmeasured, []).append(row.name)
    remarks += [
        f"Isotropy of {', '.join(names)} is not compared on {', '.join(where)}: no IsoScore, or whitening was fitted "
        "on these passages."
        for where, names in rows_without.items()
    ]
    differences = [differing([*others, baseline], key, what) for key, what in DIFFERENCES]
    return remarks + [each for each in differences if each]


def _for_reference(row: Row) -> bool:
    return not row.trained or row.first.entry.transform != "none"
