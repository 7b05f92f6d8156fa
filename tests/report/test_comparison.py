"""Rows against the baseline: figures, families, averages, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from scipy import stats

from ragcun_cli.data.registry import BEIR, FORUMS, PUBLIC
from ragcun_cli.errors import DataError
from ragcun_cli.report.averages import Average, averages_over, missing_of_beir
from ragcun_cli.report.collect import collect
from ragcun_cli.report.comparison import Comparison, ComparisonSettings, Shown, compare, differences_per_query
from ragcun_cli.report.per_query import read_scores
from ragcun_cli.report.rows import Row, fold
from ragcun_cli.report.statistics.seeds import SeedAware
from ragcun_cli.report.tables import read_rows
from tests.report.scored import arm, dataset_at, make_dataset, score_model

BOTH = Average("both", "both", ("one", "two"))


def rows_at(root: Path) -> dict[str, Row]:
    return {row.name: row for row in read_rows(root / "results", ())}


def compared(root: Path, correction: str = "holm", metric: str = "ndcg@10") -> dict[tuple[str, str], Comparison]:
    rows = rows_at(root)
    shown = Shown(tuple(rows), ("one", "two"), (BOTH,))
    made = compare(list(rows.values()), rows["baseline"], ["one", "two"], shown, ComparisonSettings(metric, correction))
    return {(each.row, each.where): each for each in made}


def per_query(path: Path, edit: Callable[[dict[str, list[float]]], None]) -> None:
    content = parquet.read_table(path).to_pydict()
    edit(content)
    parquet.write_table(arrow.table(content), path)


def test_a_comparison_by_hand(scored: Path) -> None:
    rows = rows_at(scored)
    ours, base = (read_scores(rows[name], "one", "ndcg@10").scores for name in ("isotropy", "baseline"))
    found = compared(scored)["isotropy", "one"]
    difference = ours.mean(axis=0) - base.mean(axis=0)
    assert found.difference == pytest.approx(difference.mean())
    assert found.p_t == pytest.approx(stats.ttest_1samp(difference, 0).pvalue)
    assert found.score == pytest.approx(ours.mean())
    assert found.score_deviation == pytest.approx(ours.mean(axis=1).std(ddof=1))
    assert (found.wins, found.losses) == ((difference > 0).sum(), (difference < 0).sum())
    assert (found.queries, found.score_seeds, found.paired_seeds) == (40, 3, True)
    assert found.interval is not None
    assert found.interval[0] < found.difference < found.interval[1]


def test_verdicts(scored: Path) -> None:
    found = compared(scored)
    assert found["isotropy", "one"].verdict == "better"
    assert found["frozen", "one"].verdict == "no difference shown"
    assert found["encoder", "one"].verdict == "worse"


def test_cells_and_averages_are_two_families(scored: Path) -> None:
    found = compared(scored)
    assert {each.family for each in found.values() if not each.is_average} == {6}
    assert {each.family for each in found.values() if each.is_average} == {3}
    alone = compared(scored, correction="none")["encoder", "one"]
    assert alone.p_corrected == alone.p
    adjusted = found["encoder", "one"].p_corrected
    assert adjusted is not None
    assert alone.p is not None
    assert adjusted > alone.p


def test_an_average_is_judged_by_seeds_and_queries(scored: Path) -> None:
    found = compared(scored)["isotropy", "both"]
    assert found.over_seeds is not None
    assert found.p_judged == found.over_seeds.p
    assert found.queries == 80


def test_what_is_shown_changes_no_verdict(scored: Path) -> None:
    rows = rows_at(scored)
    shown = Shown(("encoder",), ("one",))
    (few,) = compare(list(rows.values()), rows["baseline"], ["one", "two"], shown, ComparisonSettings())
    assert few == compared(scored)["encoder", "one"]
    assert few.family == 6


def test_a_row_does_not_change_another_ones_own_p_value(scored: Path) -> None:
    rows = rows_at(scored)
    (few,) = compare([rows["encoder"]], rows["baseline"], ["one"], Shown(("encoder",), ("one",)), ComparisonSettings())
    assert few.p == compared(scored)["encoder", "one"].p
    assert few.family == 1


def test_a_difference_that_seeds_could_undo_is_not_shown(scored: Path) -> None:
    found = compared(scored)["isotropy", "one"]
    wide = replace(found, over_seeds=SeedAware(0.2, 2.0, (-0.1, 0.6), 0.2))
    assert (found.verdict, wide.verdict) == ("better", "no difference shown")


def test_means_over_seeds_that_differ_in_the_last_digit_are_equal(copied: Path) -> None:
    ids, values = differences_per_query(*(rows_at(copied)[name] for name in ("frozen", "baseline")), "one", "ndcg@10")
    assert len(ids) == len(values) == 40
    assert not ((np.abs(values) > 0) & (np.abs(values) < 1e-12)).any()


def test_another_metric(scored: Path) -> None:
    assert compared(scored, metric="mrr")["isotropy", "one"].metric == "mrr"


def test_different_queries_are_not_compared(copied: Path) -> None:
    few = dataset_at(make_dataset(copied / "few" / "one", queries=30))
    score_model(copied / "results", "other", [few], 0.5)
    path = copied / "results/other/one.json"
    whole = copied / "results/encoder/one.json"
    # The same texts by their word, and yet other queries: somebody's own files.
    import json

    content, right = json.loads(path.read_text()), json.loads(whole.read_text())
    content["dataset"] = right["dataset"]
    path.write_text(json.dumps(content))
    (copied / "results/other/isotropy.json").unlink()
    with pytest.raises(
        DataError, match=r"one: other was asked 30 queries and baseline 40; 10 are in only one of the two"
    ):
        compared(copied)


def test_a_query_without_a_score(copied: Path) -> None:
    def forget(content: dict[str, list[float]]) -> None:
        content["ndcg@10"][3] = float("nan")

    per_query(copied / "results/encoder/one.queries.parquet", forget)
    with pytest.raises(DataError, match="query 'q3' has no finite ndcg@10"):
        compared(copied)


def test_scores_that_do_not_give_the_mean(copied: Path) -> None:
    def polish(content: dict[str, list[float]]) -> None:
        content["ndcg@10"][3] += 0.5

    per_query(copied / "results/encoder/one.queries.parquet", polish)
    with pytest.raises(DataError, match=r"its mean ndcg@10 is 0\.\d+, but one\.json says"):
        compared(copied)


def test_missing_and_broken_per_query_scores(copied: Path) -> None:
    path = copied / "results/encoder/one.queries.parquet"
    path.write_bytes(b"nonsense")
    with pytest.raises(DataError, match="has no readable per-query scores"):
        compared(copied)
    path.unlink()
    with pytest.raises(DataError, match="has no readable per-query scores"):
        compared(copied)


def test_queries_in_another_order_are_put_in_one(copied: Path) -> None:
    before = compared(copied)["encoder", "one"].difference

    def shuffle(content: dict[str, list[float]]) -> None:
        order = np.random.default_rng(1).permutation(len(content["query_id"]))
        for name, values in content.items():
            content[name] = [values[place] for place in order]

    per_query(copied / "results/encoder/one.queries.parquet", shuffle)
    assert compared(copied)["encoder", "one"].difference == pytest.approx(before, abs=1e-12)


def test_one_seed_says_nothing_of_seeds(tmp_path: Path) -> None:
    data = [dataset_at(make_dataset(tmp_path / "data" / name)) for name in ("one", "two")]
    score_model(tmp_path / "results", "baseline", data, 0.9, arm())
    score_model(tmp_path / "results", "isotropy", data, 0.5, arm(1.0))
    found = compared(tmp_path)
    assert found["isotropy", "both"].over_seeds is None
    assert found["isotropy", "both"].p_judged == found["isotropy", "both"].p


def test_a_trained_arm_with_one_seed_hides_behind_nobodys_seeds(tmp_path: Path) -> None:
    data = [dataset_at(make_dataset(tmp_path / "data" / name)) for name in ("one", "two")]
    for seed in (0, 1, 2):
        score_model(tmp_path / "results", f"baseline-seed{seed}", data, 0.9, arm(), seed)
    score_model(tmp_path / "results", "isotropy", data, 0.5, arm(1.0))
    assert compared(tmp_path)["isotropy", "one"].over_seeds is None


def test_a_single_query_is_no_test(tmp_path: Path) -> None:
    data = [dataset_at(make_dataset(tmp_path / "data" / "one", queries=1))]
    score_model(tmp_path / "results", "baseline", data, 0.9, arm())
    score_model(tmp_path / "results", "isotropy", data, 0.5, arm(1.0))
    found = compared(tmp_path)["isotropy", "one"]
    assert (found.p, found.interval, found.verdict) == (None, None, "no difference shown")


def test_forums_count_alike_whatever_their_queries(tmp_path: Path) -> None:
    for number, forum in enumerate(FORUMS):
        make_dataset(tmp_path / "data" / "cqadupstack" / forum, queries=3 + number)
    data = dataset_at(tmp_path / "data" / "cqadupstack")
    score_model(tmp_path / "results", "baseline", [data], 0.9, arm())
    score_model(tmp_path / "results", "isotropy", [data], 0.5, arm(1.0))
    rows = fold(collect(tmp_path / "results"))
    scores = read_scores(rows[0], "cqadupstack", "ndcg@10")
    assert scores.strata.sizes == tuple(3 + number for number in range(12))
    stated = rows[0].first.datasets["cqadupstack"].metrics["ndcg@10"]
    assert scores.strata.mean(scores.scores[0]) == pytest.approx(stated)
    assert scores.scores[0].mean() != pytest.approx(stated, abs=1e-4)
    found = compare(rows, rows[0], ["cqadupstack"], Shown((rows[1].name,), ("cqadupstack",)), ComparisonSettings())[0]
    assert found.difference == pytest.approx(rows[1].first.datasets["cqadupstack"].metrics["ndcg@10"] - stated)


def test_averages_are_of_complete_sets() -> None:
    assert averages_over(["scifact", "mine"], named=False) == []
    assert [each.label for each in averages_over(["scifact", "mine"], named=True)] == [
        "the 2 sets named (scifact, mine)"
    ]
    assert [each.short for each in averages_over(PUBLIC, named=True)] == ["Avg. 14"]
    assert [each.short for each in averages_over([*BEIR, "msmarco"], named=False)] == ["Avg. 18", "Avg. 14", "Avg. 15"]
    assert averages_over(PUBLIC[1:], named=False) == []


def test_what_keeps_an_average_away_is_said() -> None:
    assert missing_of_beir(["mine"]) == ""
    assert missing_of_beir(PUBLIC) == ""
    assert missing_of_beir(["scifact", "bioasq"]) == (
        "No average over BEIR: results exist for 2 of its 18 sets, 1 of the 14 public ones."
    )
