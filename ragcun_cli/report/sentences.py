"""Put each comparison into one sentence with its figures, claiming no more than the data show.

Nothing here is selected by its outcome: every comparison that was made gets its sentence.
"""

from __future__ import annotations

from collections.abc import Sequence

from ragcun_cli.quantities import counted
from ragcun_cli.report.comparison import SIGNIFICANCE, Comparison
from ragcun_cli.report.isotropy_comparison import IsotropyComparison
from ragcun_cli.report.statistics.corrections import CORRECTIONS
from ragcun_cli.report.statistics.paired import DRAWS, FLIPS
from ragcun_cli.report.table import metric_label

MOST_NAMED = 5  # datasets in a sentence
LEAST_P = 0.0001  # smaller values are reported as below this


def isotropy_sentence(comparison: IsotropyComparison) -> str:
    """State the comparison in one sentence, with its limits."""
    over = _listed(comparison.datasets)
    figures = (
        f"{_with_deviation(comparison.score, comparison.score_deviation, 3)} against "
        f"{_with_deviation(comparison.baseline_score, comparison.baseline_deviation, 3)}"
    )
    start = f"{comparison.row} against {comparison.baseline}, IsoScore of the passages, {over}: {figures}: "
    if comparison.between is None:
        return f"{start}{comparison.difference:+.3f}; no confidence interval, so no difference is shown."
    low, high = comparison.between.interval
    what = {"more isotropic": "more isotropic by", "less isotropic": "less isotropic by"}.get(comparison.verdict)
    found = (
        f"{what} {abs(comparison.difference):.3f}" if what else f"{comparison.verdict}, {comparison.difference:+.3f}"
    )
    once = "; seed variance unknown" if comparison.trained else ""
    by = "seeds and texts" if comparison.with_seeds else f"texts alone{once}"
    family = 0 if comparison.exploratory else comparison.family
    p = _p_values(comparison.between.p, comparison.p_corrected, comparison.correction, family)
    return f"{start}{found} (95 % interval {low:+.3f} to {high:+.3f}, over {by}; {p})."


def _listed(datasets: Sequence[str]) -> str:
    if len(datasets) == 1:
        return datasets[0]
    named = f" ({', '.join(datasets)})" if len(datasets) <= MOST_NAMED else ""
    return f"the mean of {len(datasets)} sets{named}"


def sentence(comparison: Comparison) -> str:
    """State the comparison in one sentence with all figures, and add its limits."""
    metric, where = metric_label(comparison.metric), _where(comparison)
    figures = (
        f"{_with_deviation(100 * comparison.score, comparison.score_deviation, 2, 100)} against "
        f"{_with_deviation(100 * comparison.baseline_score, comparison.baseline_deviation, 2, 100)}"
    )
    start = f"{comparison.row} against {comparison.baseline} {where}, {metric} x 100: {figures}: "
    if comparison.p_corrected is None:
        single = "one of its datasets or forums has a single query" if comparison.queries > 1 else "it has one query"
        return f"{start}{100 * comparison.difference:+.2f}; not tested: {single}."
    points = 100 * comparison.difference
    if comparison.verdict in ("no difference shown", "exploratory"):
        found = f"{comparison.verdict}, {points:+.2f}"
    else:
        found = f"{comparison.verdict} by {abs(points):.2f}"
    return f"{start}{found} ({_evidence(comparison)}).{_reservation(comparison)}"


def _where(comparison: Comparison) -> str:
    return f"on average over {comparison.where}" if comparison.is_average else f"on {comparison.scored_on}"


def _evidence(comparison: Comparison) -> str:
    """The figures behind the verdict; for an average with seeds, those over seeds and queries together."""
    by_seeds = comparison.is_average and comparison.over_seeds is not None
    interval = comparison.over_seeds.interval if by_seeds and comparison.over_seeds else comparison.interval
    parts = []
    if interval is not None:
        over = "seeds and queries" if by_seeds else "queries"
        parts.append(f"95 % interval over {over} {100 * interval[0]:+.2f} to {100 * interval[1]:+.2f}")
    assert comparison.p_judged is not None
    family = 0 if comparison.exploratory else comparison.family
    parts.append(_p_values(comparison.p_judged, comparison.p_corrected, comparison.correction, family))
    if comparison.effect_size is not None:
        parts.append(f"d = {comparison.effect_size:.2f}")
    ties = comparison.queries - comparison.wins - comparison.losses
    parts.append(f"queries: {comparison.wins} better, {comparison.losses} worse, {ties} tied")
    return "; ".join(parts)


def _reservation(comparison: Comparison) -> str:
    words = []
    judged, adjusted = comparison.p_judged, comparison.p_corrected
    if judged is not None and adjusted is not None and judged < SIGNIFICANCE <= adjusted:
        words.append(f"Significant without correction, but not after correction for {comparison.family} comparisons.")
    if comparison.verdict == "no difference shown" and comparison.detectable is not None:
        words.append(
            f"A true difference of {100 * comparison.detectable:.2f} would have been found 8 times in 10; "
            "smaller ones less often."
        )
    if comparison.over_seeds is None and comparison.trained:
        words.append("One seed: this holds for the models at hand; seed variance unknown.")
    elif comparison.over_seeds is not None and not comparison.is_average:
        low, high = comparison.over_seeds.interval
        span = f"Including seed variance, the interval is {100 * low:+.2f} to {100 * high:+.2f}"
        passed = adjusted is not None and adjusted < SIGNIFICANCE
        only = ": these models differ, but those of other seeds may not" if passed and low <= 0 <= high else ""
        words.append(f"{span}{only}.")
    return "".join(f" {each}" for each in words)


def _with_deviation(value: float, deviation: float | None, digits: int, scale: float = 1) -> str:
    return f"{value:.{digits}f}" + (f" ± {scale * deviation:.{digits}f}" if deviation is not None else "")


def _p_values(p: float, adjusted: float | None, correction: str, family: int) -> str:
    if family == 0:
        return f"{_p(p)}, exploratory and not corrected"
    if correction == "none" or family < 2 or adjusted is None:
        return _p(p)
    return f"{_p(p)}, {_p(adjusted)} by {CORRECTIONS[correction]} over {counted(family, 'comparison')}"


def _p(value: float) -> str:
    return f"p < {LEAST_P}" if value < LEAST_P else f"p = {p_value(value)}"


def p_value(value: float) -> str:
    """Format a p-value with as many digits as are meaningful."""
    if value < LEAST_P:
        return f"< {LEAST_P}"
    return f"{value:.4f}" if value < 0.01 else f"{value:.3f}"


def preamble(
    comparisons: Sequence[Comparison],
    isotropy: Sequence[IsotropyComparison],
    correction: str,
    primary: Sequence[str] | None,
) -> str:
    """Explain how all comparisons were made."""
    families = [
        f"{next(each.family for each in some)} {what}"
        for what, some in (
            ("on datasets", [each for each in comparisons if not each.is_average]),
            ("on averages", [each for each in comparisons if each.is_average]),
            ("of isotropy", isotropy),
        )
        if some
    ]
    by = ""
    if correction != "none":
        over = "all rows and datasets of the results, shown or not,"
        if primary is not None:
            over = f"the primary comparisons ({', '.join(primary)}) on all datasets"
        by = f" p-values are corrected by {CORRECTIONS[correction]} over {over} in families: {', '.join(families)}."
    if primary is not None:
        by += (
            " All other comparisons are exploratory: their p-values are not corrected and nothing is claimed from them."
        )
    pooled = ""
    if any(each.is_average for each in comparisons):
        pooled = (
            " Averages, where there are seeds: variances over seeds and over queries (of each dataset) add up, with "
            "Student's t with Satterthwaite's degrees of freedom; the datasets themselves are taken as given."
        )
    return (
        f"Per-query differences between means over seeds. p: paired sign-flip test, two-sided, {FLIPS:,} flips.{by} A "
        f"difference is claimed if p < {SIGNIFICANCE} and, where there are seeds, an interval including seed "
        "variance excludes 0."
        f"{pooled} Intervals over queries: percentiles of {DRAWS:,} bootstrap draws. Intervals are "
        "not corrected. d: mean difference in standard deviations of the differences."
    )
