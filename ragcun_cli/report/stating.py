"""All claims of a set of results, in the order a reader wants them: averages, isotropy, single datasets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragcun_cli.errors import UsageError
from ragcun_cli.quantities import counted
from ragcun_cli.report.averages import averages_over, missing_of_beir
from ragcun_cli.report.claims import isotropy_sentence, preamble, sentence
from ragcun_cli.report.collect import collect
from ragcun_cli.report.comparison import Comparison, Settings, Shown, compare
from ragcun_cli.report.isotropy_comparison import IsotropyComparison, compare_isotropy
from ragcun_cli.report.rows import DIFFERENCES, Row, choose_rows, contrast_with, differing, find_baseline, fold
from ragcun_cli.report.scores import choose_datasets, known_datasets, require_metric
from ragcun_cli.report.statistics.corrections import require_correction
from ragcun_cli.report.table import metric_label

VERDICTS = ("better", "worse", "no difference shown")


@dataclass(frozen=True)
class Claims:
    """Comparisons with the baseline, and what else a reader must know. Arms come before rows that are for reference."""

    preamble: str
    metric: str
    baseline: Row
    averages: list[Comparison]
    isotropy: list[IsotropyComparison]
    datasets: list[Comparison]
    remarks: list[str]

    def headlines(self) -> list[str]:
        """Of each row in a few words: isotropy, averages, and how often what was shown on datasets."""
        isotropy = {each.row: each.verdict for each in self.isotropy}
        rows = dict.fromkeys([each.row for each in (*self.datasets, *self.averages)] + list(isotropy))
        return [self._headline(row, isotropy.get(row)) for row in rows]

    def _headline(self, row: str, isotropy: str | None) -> str:
        parts = [] if isotropy is None else [f"isotropy: {isotropy}"]
        parts += [f"{each.where}: {each.verdict}" for each in self.averages if each.row == row]
        verdicts = Counter(each.verdict for each in self.datasets if each.row == row)
        if verdicts:
            shown = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in VERDICTS if verdicts[verdict])
            parts.append(f"{metric_label(self.metric)} on {counted(sum(verdicts.values()), 'dataset')}: {shown}")
        of_row = [each for each in (*self.datasets, *self.averages) if each.row == row]
        if any(each.trained and each.over_seeds is None for each in of_row):
            parts.append("One seed: of the models at hand alone")
        return f"{row} against {self.baseline.name}. {'. '.join(parts)}."

    def sentences(self) -> list[str]:
        """Headlines, then each comparison: averages, isotropy, datasets; then the remarks."""
        return [
            *self.headlines(),
            *map(sentence, self.averages),
            *map(isotropy_sentence, self.isotropy),
            *map(sentence, self.datasets),
            *self.remarks,
        ]

    def entry(self) -> dict[str, Any]:
        """For a program."""
        return {
            "how": self.preamble,
            "baseline": self.baseline.name,
            "headlines": self.headlines(),
            "comparisons": [{"sentence": sentence(each), **each.entry()} for each in (*self.averages, *self.datasets)],
            "isotropy": [{"sentence": isotropy_sentence(each), **each.entry()} for each in self.isotropy],
            "remarks": self.remarks,
        }


def state(
    results: Path, metric: str, datasets: Sequence[str], rows: Sequence[str], baseline: str | None, correction: str
) -> Claims:
    """
    Raises:
        UsageError: if there is no baseline, nothing to compare with it, or a flag asks for what is not there.
        DataError: if results cannot be read or compared.
    """
    require_correction(correction)
    every = fold(collect(results))
    return state_rows(every, choose_rows(every, rows), find_baseline(every, baseline), metric, datasets, correction)


def state_rows(
    every: Sequence[Row],
    rows: Sequence[Row],
    baseline: Row | None,
    metric: str,
    datasets: Sequence[str],
    correction: str,
) -> Claims:
    """`state` of rows that were read: of all of them, those chosen."""
    if baseline is None:
        raise UsageError(
            "no row is the baseline by itself: none, or more than one, trains the encoder without an isotropy term",
            f"Name one: --baseline, one of {', '.join(row.name for row in rows)}.",
        )
    require_metric(every, metric)
    others = [row for row in rows if row is not baseline]
    if not others:
        raise UsageError(f"there is only {baseline.name}: nothing to compare it with", "Score another model.")
    chosen = choose_datasets([*rows, baseline], datasets)
    averages = averages_over(chosen, named=bool(datasets))
    shown = Shown(tuple(row.name for row in others), tuple(chosen), tuple(averages))
    known = known_datasets(every)
    made = compare(sorted(every, key=_for_reference), baseline, known, shown, Settings(metric, correction))
    isotropy = compare_isotropy(sorted(every, key=_for_reference), baseline, chosen, correction)
    return Claims(
        preamble=preamble(made, isotropy, correction),
        metric=metric,
        baseline=baseline,
        averages=[each for each in made if each.is_average],
        isotropy=[each for each in isotropy if each.row in shown.rows],
        datasets=[each for each in made if not each.is_average],
        remarks=_remarks(others, baseline, chosen, averages != [], metric),
    )


def _remarks(
    others: Sequence[Row], baseline: Row, datasets: Sequence[str], has_averages: bool, metric: str
) -> list[str]:
    """What a reader might expect to be told."""
    remarks = []
    if not has_averages and len(datasets) > 1:
        remarks.append(
            missing_of_beir(known_datasets([*others, baseline]))
            or "No average is taken: name the sets that one should be of (--datasets)."
        )
    once = [row.name for row in (*others, baseline) if row.trained and len(row.members) == 1]
    if once:
        remarks.append(
            f"Trained with one seed: {', '.join(once)}. What is said of these is of the models at hand, not of how "
            "they were trained; three seeds are the least that says more."
        )
    for row in others:
        contrast = contrast_with(row, baseline)
        if contrast:
            remarks.append(f"{row.name} differs from {baseline.name} in {contrast}.")
        lacking = [name for name in datasets if not (row.scores(name, metric) and baseline.scores(name, metric))]
        if lacking:
            remarks.append(f"{row.name} is not compared on {', '.join(lacking)}: not all of both were scored there.")
        unmeasured = [name for name in datasets if not (row.isoscores(name) and baseline.isoscores(name))]
        if unmeasured:
            remarks.append(
                f"{row.name}'s isotropy is not compared on {', '.join(unmeasured)}: an IsoScore of the passages is "
                "missing, or has no meaning (of passages that a whitening was fitted on)."
            )
    differences = [differing([*others, baseline], key, what) for key, what in DIFFERENCES]
    return remarks + [each for each in differences if each]


def _for_reference(row: Row) -> bool:
    return not row.trained or row.first.entry["transform"] != "none"
