"""Print the output of `ragcun eval` on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ragcun_cli.console import Column, note, plain, print_table

if TYPE_CHECKING:
    from ragcun_cli.evaluate.datasets import Missing
    from ragcun_cli.evaluate.runner import Measured
    from ragcun_cli.evaluate.selfcheck import ScoreCheck
    from ragcun_cli.results.dataset_result import DatasetResult


def print_results(written: Sequence[DatasetResult], means: list[dict[str, Any]]) -> None:
    """Print scores, averages, notes on ties, and scores of compressed embeddings."""
    headers = ["nDCG@10", "Recall@100", "MAP", "MRR", "judged@10", "IsoScore"]
    columns = [Column("model"), Column("dataset"), *(Column(header, numeric=True) for header in headers)]
    rows = []
    for result in written:
        metrics = result.metrics
        figures = [f"{metrics[key]:.4f}" for key in ("ndcg@10", "recall@100", "map", "mrr", "judged@10")]
        isoscore = None if result.isotropy is None else result.isotropy.passages.isoscore
        shown = "-" if isoscore is None else f"{isoscore:.3f}"
        rows.append([plain(result.model.name), plain(_scored_on(result)), *figures, shown])
    for mean in means:
        rows.append([plain(mean["model"]), f"mean of {mean['over']}", f"{mean['ndcg@10']:.4f}", *["-"] * 5])
    print_table(columns, rows)
    for result in written:
        if sentence := _ties_sentence(result):
            note(sentence)
    _print_robustness(written)


def _scored_on(result: DatasetResult | Measured) -> str:
    from ragcun_cli.results.layout import scored_on

    return scored_on(result.name, result.split, result.queries)


def _ties_sentence(result: DatasetResult) -> str:
    """Say what another order of tied passages would score, or nothing if no shown digit would change."""
    from ragcun_cli.results.layout import ties_sentence

    sentence = ties_sentence(result.ties, "ndcg@10", "nDCG@10")
    return f"{result.model.name} on {_scored_on(result)}: {sentence}" if sentence else ""


def _print_robustness(written: Sequence[DatasetResult]) -> None:
    kinds = list(dict.fromkeys(kind for result in written for kind in result.robustness))
    if not kinds:
        return
    columns = [Column("nDCG@10 after"), Column("dataset"), *(Column(kind, numeric=True) for kind in ["none", *kinds])]
    rows = []
    for result in written:
        after = {"none": result.metrics["ndcg@10"], **result.robustness}
        figures = ["-" if after.get(kind) is None else f"{after[kind]:.4f}" for kind in ["none", *kinds]]
        rows.append([plain(result.model.name), plain(_scored_on(result)), *figures])
    print_table(columns, rows)


def print_isotropy(measured: Sequence[Measured]) -> None:
    """Print the shape of passage embeddings and query embeddings separately."""
    from ragcun_cli.results.isotropy import SIDES

    shown = {
        "IsoScore": "isoscore",
        "mean cosine": "mean_cosine",
        "std": "standard_deviation",
        "eff. rank": "effective_rank",
        "of texts": "effective_rank_texts",
        "uniformity": "uniformity",
        "EP excess": "epps_pulley_excess",
    }
    headers = ["N", "D", *shown, "IsoScore 95 %", "alignment", "hubness"]
    columns = [Column("model"), Column("dataset"), Column("of"), *(Column(header, numeric=True) for header in headers)]
    rows = []
    for each in measured:
        for name in SIDES:
            if each.isotropy is None or (side := each.isotropy.side(name)) is None:
                continue
            figures = [getattr(side, key) for key in shown.values()]
            interval = "-" if side.interval is None else "{:.3f}-{:.3f}".format(*side.interval)
            # These describe both sides together, so print them once.
            both = [each.isotropy.alignment, each.isotropy.hubness] if name == SIDES[0] else [None, None]
            row = [plain(each.model.name), plain(_scored_on(each)), name, str(side.texts), str(side.dimensions)]
            rows.append([*row, *map(_shown, figures), interval, *map(_shown, both)])
    print_table(columns, rows)


def _shown(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.4g}"


def print_missing(missing: Sequence[Missing]) -> None:
    """Print which datasets are missing and how to get them."""
    if missing:
        note(f"{len(missing)} datasets are missing:")
    for each in missing:
        note(f"  {each.name}: {each.how}")


def print_checks(checks: Sequence[ScoreCheck]) -> None:
    """Print published scores beside measured ones."""
    columns = [Column("dataset"), *(Column(header, numeric=True) for header in ("published", "measured")), Column("")]
    print_table(
        columns,
        [
            [each.dataset, f"{each.published:.5f}", f"{each.measured:.5f}", "pass" if each.passed else "FAIL"]
            for each in checks
            if each.measured is not None
        ],
    )
    for each in checks:
        if each.measured is None:
            note(f"  {each.dataset} is missing: {each.how}")
