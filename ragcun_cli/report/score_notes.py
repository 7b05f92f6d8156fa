"""The text around the main table: what its figures are, how marks are made, and what else a reader must know."""

from __future__ import annotations

from collections.abc import Sequence

from ragcun_cli.data.registry import IN_DOMAIN
from ragcun_cli.report.averages import Average, missing_of_beir
from ragcun_cli.report.comparison import SIGNIFICANCE, Comparison, ComparisonSettings
from ragcun_cli.report.rows import DIFFERENCES, Row, differing, no_baseline
from ragcun_cli.report.staleness import stale_sentences
from ragcun_cli.report.statistics.corrections import CORRECTIONS
from ragcun_cli.report.statistics.paired import FLIPS
from ragcun_cli.report.table import BETTER, WORSE, metric_label, seeds_sentence
from ragcun_cli.results.layout import ties_sentence

SMALLEST_RANGE = 0.05  # of a figure x 100, between the worst and the best order of ties
MOST_TIES = 3  # most sentences about ties
FOR_ALL = {"output_dim": "Embeddings of {} dimensions.", "max_length": "Texts are cut at {} tokens."}


def score_caption(
    rows: Sequence[Row], averages: Sequence[Average], isotropy_over: Sequence[str], isotropy_label: str, metric: str
) -> str:
    """Say what the figures are."""
    parts = [f"{metric_label(metric)} x 100, {_similarity(rows)}, exact search.", seeds_sentence(rows)]
    parts += [f"{average.short}: {average.label}." for average in averages]
    mean = f", mean of {len(isotropy_over)} sets" if len(isotropy_over) > 1 else ""
    parts.append(f"{isotropy_label.split(',')[0]}: unbiased IsoScore of the passages{mean}; 1 is isotropic.")
    return " ".join(part for part in parts if part)


def score_notes(
    rows: Sequence[Row],
    datasets: Sequence[str],
    averages: Sequence[Average],
    settings: ComparisonSettings,
    baseline: Row | None,
    comparisons: Sequence[Comparison],
    every: Sequence[Row],
) -> list[str]:
    """Write notes of a sentence or two on what else a reader must know. every: all rows of the results."""
    scored = {name for row in rows for member in row.members for name in member.datasets}
    notes = stale_sentences(each for row in rows for each in row.stale)
    notes.append(_test_sentence(settings, baseline, comparisons, every))
    if not any(set(average.datasets) <= scored for average in averages):
        notes.append(missing_of_beir(scored))
    notes.append(_queries(rows, datasets))
    if IN_DOMAIN in datasets and IN_DOMAIN in scored:
        notes.append("MS MARCO is in domain for arms that were trained on it; the other sets are not.")
    for key, what in DIFFERENCES:
        value = getattr(rows[0].first.entry, key)
        same = FOR_ALL[key].format(value) if key in FOR_ALL and value is not None else ""
        notes.append(differing(rows, key, what) or same)
    notes += [*_missing(rows, datasets), *_remarks(rows, datasets)]
    notes += _ties(rows, datasets, settings.metric)
    return [note for note in notes if note]


def _test_sentence(
    settings: ComparisonSettings, baseline: Row | None, comparisons: Sequence[Comparison], every: Sequence[Row]
) -> str:
    if baseline is None:
        return f"No significance marks: {no_baseline(every)}."
    if not comparisons:
        return f"No significance marks: no other row was scored on the same datasets as {baseline.label}."
    sentence = (
        f"{BETTER} better, {WORSE} worse than {baseline.label}, p < {SIGNIFICANCE}: paired sign-flip test "
        f"({FLIPS:,} flips) of per-query differences"
    )
    if any(each.score_seeds > 1 or each.baseline_seeds > 1 for each in comparisons):
        sentence += " between means over seeds, and an interval that includes seed variance excludes 0"
    averages = [each for each in comparisons if each.is_average]
    by_queries = [each.row for each in averages if each.over_seeds is None]
    if averages and len(by_queries) < len(averages):
        sentence += "; averages are tested over seeds and queries together"
        if by_queries:
            sentence += f" (those of {', '.join(dict.fromkeys(by_queries))} over queries alone)"
    return f"{sentence}. {_correction_sentence(settings, comparisons)} No mark: no difference shown, or not tested."


def _correction_sentence(settings: ComparisonSettings, comparisons: Sequence[Comparison]) -> str:
    if settings.correction == "none":
        return "Not corrected for the number of comparisons."
    over = "all comparisons of these results"
    if settings.primary is not None:
        over = f"the primary comparisons ({', '.join(settings.primary)})"
    families = {
        "on datasets": next((each.family for each in comparisons if not each.is_average), 0),
        "on averages": next((each.family for each in comparisons if each.is_average), 0),
    }
    listed = " and, separately, ".join(f"{count} {what}" for what, count in families.items() if count)
    others = "" if settings.primary is None else " All others are exploratory and carry no marks."
    return f"{CORRECTIONS[settings.correction]} correction over {over}: {listed}.{others}"


def _queries(rows: Sequence[Row], datasets: Sequence[str]) -> str:
    found = {name: member.datasets[name] for row in rows for member in row.members for name in datasets
             if name in member.datasets}  # fmt: skip
    listed = [f"{name} {found[name].queries} ({found[name].split})" for name in datasets if name in found]
    return f"Queries: {', '.join(listed)}." if listed else ""


def _missing(rows: Sequence[Row], datasets: Sequence[str]) -> list[str]:
    """Explain cells left empty because some of a row's seeds lack what its other seeds have."""
    notes = []
    without: dict[bool, list[str]] = {}
    for row in rows:
        for dataset in datasets:
            lacking = [member.name for member in row.members if dataset not in member.datasets]
            if lacking and len(lacking) < len(row.members):
                notes.append(f"{row.name} has no score on {dataset}: {', '.join(lacking)} was not scored on it.")
            unmeasured = [member.name for member in row.members if member.isoscore(dataset) is None]
            if unmeasured and len(unmeasured) < len(row.members):
                notes.append(f"{row.name} has no IsoScore: {', '.join(unmeasured)} has none on {dataset}.")
        if datasets and all(member.isoscore(name) is None for member in row.members for name in datasets):
            whitened = str(row.first.entry.transform).startswith("whiten")
            without.setdefault(whitened, []).append(row.name)
    for whitened, names in without.items():
        why = ": whitening was fitted on these passages" if whitened else ""
        notes.append(f"{', '.join(names)}: no IsoScore{why}.")
    return notes


def _remarks(rows: Sequence[Row], datasets: Sequence[str]) -> list[str]:
    notes = []
    for dataset in datasets:
        results = [member.datasets[dataset] for row in rows for member in row.members if dataset in member.datasets]
        remarks = sorted({remark for result in results for remark in result.dataset.differs_from_published or ()})
        if remarks:
            notes.append(f"{dataset} differs from its published version: {'; '.join(remarks)}.")
    return notes


def _ties(rows: Sequence[Row], datasets: Sequence[str], metric: str) -> list[str]:
    """Note where the printed figure depends on the order of ties."""
    notes = []
    for dataset in datasets:
        for member in (member for row in rows for member in row.members if dataset in member.datasets):
            ties = member.datasets[dataset].ties or {}
            of_metric = ties.get("metrics", {}).get(metric)
            if of_metric and 100 * (of_metric["high"] - of_metric["low"]) >= SMALLEST_RANGE:
                notes.append(f"{member.name} on {dataset}: {ties_sentence(ties, metric, metric_label(metric))}.")
    if len(notes) > MOST_TIES:
        more = f"{len(notes) - MOST_TIES} more figures depend on the order of ties: see `ties` in the results' JSON."
        notes = [*notes[:MOST_TIES], more]
    return notes


def _similarity(rows: Sequence[Row]) -> str:
    cosine = [row.name for row in rows if row.first.entry.similarity == "cosine"]
    if not cosine:
        return "Euclidean distance"
    return "cosine" if len(cosine) == len(rows) else f"Euclidean distance (cosine: {', '.join(cosine)})"
