"""The sentences: what they say, and what they take care not to say."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from ragcun_cli.errors import UsageError
from ragcun_cli.report.claims import Claims, build_claims
from ragcun_cli.report.comparison import Comparison
from ragcun_cli.report.isotropy_comparison import compare_isotropy
from ragcun_cli.report.rows import fold
from ragcun_cli.report.selection import Selection
from ragcun_cli.report.sentences import isotropy_sentence, p_value, sentence
from ragcun_cli.report.statistics.seeds import SeedAware
from ragcun_cli.results.isotropy import IsotropyEntry, MeasuredIsotropy, SideIsotropy
from tests.report.scored import arm, dataset_at, make_dataset, score_model
from tests.report.test_rows import model

PLAIN = Comparison(
    row="isotropy", baseline="baseline", where="scifact", is_average=False, metric="ndcg@10", score=0.6512,
    score_deviation=0.004, score_seeds=3, baseline_score=0.6402, baseline_deviation=0.002, baseline_seeds=3,
    paired_seeds=True, trained=True, queries=300, wins=120, losses=90, difference=0.011, p=0.002, p_t=0.003,
    p_corrected=0.008, correction="holm", family=4, interval=(0.004, 0.018), effect_size=0.18, detectable=0.012,
    over_seeds=SeedAware(0.004, 5.0, (0.001, 0.021), 0.03), split="test",
)  # fmt: skip


def told(root: Path, datasets: tuple[str, ...] = ()) -> Claims:
    return build_claims(root / "results", Selection(datasets=datasets))


def test_better() -> None:
    assert sentence(PLAIN) == (
        "isotropy against baseline on scifact (test, 300 queries), nDCG@10 x 100: 65.12 ± 0.40 against 64.02 ± 0.20: "
        "better by 1.10 (95 % interval over queries +0.40 to +1.80; p = 0.0020, p = 0.0080 by Holm over 4 comparisons; "
        "d = 0.18; queries: 120 better, 90 worse, 90 tied). Including seed variance, the interval is +0.10 to +2.10."
    )


def test_worse() -> None:
    assert ": worse by 1.10 (" in sentence(replace(PLAIN, difference=-0.011))


def test_no_difference_says_what_would_have_been_found() -> None:
    said = sentence(replace(PLAIN, p=0.3, p_corrected=0.6))
    assert ": no difference shown, +1.10 (" in said
    assert "A true difference of 1.20 would have been found 8 times in 10" in said
    assert ": better by" not in said
    assert "Significant without correction" not in said


def test_what_only_the_correction_takes_away_is_said() -> None:
    said = sentence(replace(PLAIN, p=0.02, p_corrected=0.08))
    assert "no difference shown" in said
    assert "Significant without correction, but not after correction for 4 comparisons." in said


def test_better_for_these_seeds_only() -> None:
    said = sentence(replace(PLAIN, over_seeds=SeedAware(0.01, 2.0, (-0.01, 0.03), 0.3)))
    assert "no difference shown, +1.10" in said
    assert (
        "Including seed variance, the interval is -1.00 to +3.00: "
        "these models differ, but those of other seeds may not." in said
    )


def test_one_seed() -> None:
    said = sentence(replace(PLAIN, over_seeds=None, score_deviation=None))
    assert said.endswith("One seed: this holds for the models at hand; seed variance unknown.")


def test_encoders_that_nobody_trained_here_have_no_seeds() -> None:
    said = sentence(replace(PLAIN, over_seeds=None, trained=False))
    assert "seed" not in said


def test_an_average_is_stated_with_seeds() -> None:
    said = sentence(replace(PLAIN, is_average=True, where="BEIR, 14 public sets"))
    assert "on average over BEIR, 14 public sets" in said
    assert "95 % interval over seeds and queries +0.10 to +2.10; p = 0.030" in said


def test_of_a_single_query_nothing_is_said() -> None:
    silent = replace(PLAIN, p=None, p_corrected=None, interval=None, effect_size=None, detectable=None)
    assert sentence(silent).endswith("+1.10; not tested: one of its datasets or forums has a single query.")


def test_every_comparison_has_its_sentence(scored: Path) -> None:
    claims = told(scored)
    assert len(claims.datasets) == 6
    assert len(claims.sentences()) == 3 + 6 + 3 + len(claims.remarks)
    first = claims.headlines()[0]
    assert (first.row, first.verdict) == ("isotropy", "better")
    assert first.text == (
        "isotropy against baseline. isotropy: no difference shown. nDCG@10 on 2 datasets: better on each. It differs "
        "in lambda_isotropy (1.0, not 0.0)."
    )
    assert [each.row for each in claims.headlines()] == ["isotropy", "frozen"]  # the untouched encoder is no arm
    assert [each.row for each in claims.others()] == ["encoder"]
    assert any("isotropy against baseline on one" in each and ": better by" in each for each in claims.sentences())
    assert any(
        "frozen against baseline on one" in each and "no difference shown" in each for each in claims.sentences()
    )


def test_the_answer_about_one_dataset_says_what_was_scored(scored: Path) -> None:
    (first, *_) = told(scored, ("one",)).headlines()
    assert re.search(r"nDCG@10 on one \(test, \d+ queries\): better \(\+", first.text), first.text


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.00001, "< 0.0001"), (0.0001, "0.0001"), (0.00994, "0.0099"), (0.01, "0.010"), (0.5, "0.500"), (1.0, "1.000")],
)
def test_a_p_value_has_the_digits_that_say_something(value: float, shown: str) -> None:
    assert p_value(value) == shown


def test_no_average_is_claimed_over_what_happens_to_be_there(scored: Path) -> None:
    assert told(scored).averages == []
    assert told(scored).remarks[0] == "No average: name the sets with --datasets."
    named = told(scored, ("one", "two"))
    assert [each.where for each in named.averages] == ["the 2 sets named (one, two)"] * 3


def test_what_differs_between_arms_is_said(scored: Path) -> None:
    isotropy, frozen = told(scored).headlines()
    assert isotropy.text.endswith("It differs in lambda_isotropy (1.0, not 0.0).")
    assert frozen.text.endswith("It differs in lambda_isotropy (1.0, not 0.0), freeze_base (True, not False).")


def test_primary_comparisons_alone_are_corrected_and_the_others_exploratory(scored: Path) -> None:
    every = told(scored)
    results = scored / "results"
    claims = build_claims(results, Selection(primary=["isotropy vs baseline"]))
    assert [each.row for each in claims.headlines()] == ["isotropy"]
    primary = [each for each in claims.datasets if each.row == "isotropy"]
    others = [each for each in claims.datasets if each.row != "isotropy"]
    assert {each.family for each in primary} == {2}
    assert {each.family for each in every.datasets} == {6}
    assert all(each.verdict == "better" and not each.exploratory for each in primary)
    assert all(each.verdict == "exploratory" and each.p_corrected == each.p for each in others)
    assert all("exploratory and not corrected" in sentence(each) for each in others)
    assert {each.row: each.verdict for each in claims.isotropy if each.exploratory} == {
        "encoder": "exploratory", "frozen": "exploratory",
    }  # fmt: skip
    assert "over the primary comparisons (isotropy) on all datasets" in claims.preamble
    assert "over all rows and datasets of the results" in every.preamble
    both = build_claims(results, Selection(primary=["frozen against baseline", "isotropy vs. baseline"]))
    assert [each.row for each in both.headlines()] == ["frozen", "isotropy"]


@pytest.mark.parametrize(
    ("declared", "complaint"),
    [
        ("isotropy", "expected 'ROW vs BASELINE'"),
        ("isotropie vs baseline", "did you mean 'isotropy'"),
        ("isotropy vs frozen", "primary comparisons must be against the baseline"),
        ("baseline vs baseline", "primary comparisons must be against the baseline"),
    ],
)
def test_what_is_no_primary_comparison(scored: Path, declared: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        build_claims(scored / "results", Selection(primary=[declared]))


def test_what_was_trained_once_is_named(tmp_path: Path) -> None:
    data = [dataset_at(make_dataset(tmp_path / "data" / "one"))]
    score_model(tmp_path / "results", "baseline", data, 0.9, arm())
    score_model(tmp_path / "results", "isotropy", data, 0.5, arm(1.0))
    assert told(tmp_path).remarks[0].startswith("Trained with one seed: isotropy, baseline.")
    assert "One seed: seed variance unknown." in told(tmp_path).headlines()[0].text


def test_what_is_not_compared_is_named(copied: Path) -> None:
    (copied / "results/frozen-seed1/two.json").unlink()
    claims = told(copied)
    assert "frozen is not compared on two: not all seeds of both were scored." in claims.remarks
    assert ("frozen", "two") not in {(each.row, each.where) for each in claims.datasets}


def test_no_baseline_and_nothing_to_compare(tmp_path: Path) -> None:
    data = [dataset_at(make_dataset(tmp_path / "data" / "one"))]
    score_model(tmp_path / "results", "encoder", data, 0.9)
    with pytest.raises(UsageError, match="no arm trains the encoder without an isotropy term") as raised:
        told(tmp_path)
    assert "encoder" in raised.value.hint
    with pytest.raises(UsageError, match="there is only encoder"):
        build_claims(tmp_path / "results", Selection(baseline="encoder"))


def test_claims_for_a_program_are_json(scored: Path) -> None:
    content = json.loads(json.dumps(told(scored, ("one", "two")).entry(), allow_nan=False))
    first = next(each for each in content["comparisons"] if each["row"] == "isotropy" and not each["is_average"])
    assert first["verdict"] == "better"
    assert first["sentence"].startswith("isotropy against baseline on one")
    assert len(first["over_seeds"]["interval"]) == 2


def isotropy_of(scores: dict[str, list[float]], width: float | None) -> dict[str, str]:
    def passages(value: float) -> SideIsotropy:
        ends = None if width is None else (value - width, value + width)
        return SideIsotropy(texts=4, dimensions=8, isoscore=value, interval=ends)

    rows = fold(
        [
            replace(
                model(f"{name}-seed{seed}" if len(values) > 1 else name, seed, float(name != "baseline")),
                geometry={"x": IsotropyEntry("test", "", MeasuredIsotropy(passages=passages(value), queries=None))},
            )
            for name, values in scores.items()
            for seed, value in enumerate(values)
        ]
    )
    baseline = next(row for row in rows if row.name == "baseline")
    return {each.row: isotropy_sentence(each) for each in compare_isotropy(rows, baseline, ["x"], "holm")}


def test_isotropy_by_seeds_and_texts() -> None:
    said = isotropy_of({"baseline": [0.2, 0.21, 0.19], "high": [0.4, 0.41, 0.42], "same": [0.2, 0.21, 0.2]}, 0.01)
    assert "more isotropic by 0.210" in said["high"]
    assert "over seeds and texts" in said["high"]
    assert "Holm over 2 comparisons" in said["high"]
    assert "no difference shown, +0.003" in said["same"]


def test_isotropy_with_wide_intervals_shows_nothing() -> None:
    assert "no difference shown" in isotropy_of({"baseline": [0.2, 0.21], "high": [0.4, 0.41]}, 0.4)["high"]


def test_isotropy_of_one_seed_and_without_an_interval() -> None:
    assert "seed variance unknown" in isotropy_of({"baseline": [0.2], "high": [0.4]}, 0.01)["high"]
    without = isotropy_of({"baseline": [0.2], "high": [0.4]}, None)["high"]
    assert without.endswith("no confidence interval, so no difference is shown.")
