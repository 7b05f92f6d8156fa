"""The tables before any format: marks, averages, missing figures, notes, presets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ragcun_cli.data.registry import PUBLIC
from ragcun_cli.errors import UsageError
from ragcun_cli.report.collect import ModelResults
from ragcun_cli.report.comparison import ComparisonSettings
from ragcun_cli.report.rows import Row, fold
from ragcun_cli.report.scores import build_scores, paper_columns, plain_columns
from ragcun_cli.report.table import BETTER, WORSE, Cell, ResultTable, metric_label, ranked
from ragcun_cli.report.tables import TableOptions, build_table
from ragcun_cli.results.dataset_result import DatasetResult, ScoredTexts
from ragcun_cli.results.isotropy import IsotropyEntry, MeasuredIsotropy, SideIsotropy
from ragcun_cli.results.model_entry import ModelEntry
from tests.report.scored import arm, dataset_at, make_dataset, recipe_of, score_model


def result(name: str, score: float, model: ModelEntry) -> DatasetResult:
    return DatasetResult(
        format=2, fingerprint=f"{name}{score}", rules={"average": "mean of queries"}, metrics={"ndcg@10": score},
        robustness={}, isotropy=None, versions={}, command="", model=model, folder=Path(),
        dataset=ScoredTexts(name=name, found_at=name, split="test", sha256="s", queries=300,
                            differs_from_published=None),
    )  # fmt: skip


def row(name: str, **scores: float) -> Row:
    entry = ModelEntry(name=name, asked_name=name, kind="untouched", identity=name, arm=None, max_length=8,
                       output_dim=9, precision="float32", tokenizer_sha256="2" * 64)  # fmt: skip
    datasets = {
        dataset.replace("_", "-"): result(dataset.replace("_", "-"), score, entry) for dataset, score in scores.items()
    }
    passages = SideIsotropy(texts=4, dimensions=8, isoscore=0.5)
    entry_of = IsotropyEntry("test", "", MeasuredIsotropy(passages=passages, queries=None))
    geometry = dict.fromkeys(datasets, entry_of)
    return Row(name, (ModelResults(name, Path(name), entry, datasets, geometry),))


def table_of(rows: list[Row], named: tuple[str, ...] = ()) -> ResultTable:
    return build_scores(rows, plain_columns(rows, named), ComparisonSettings(), None, {})


def texts(table: ResultTable) -> list[list[str | None]]:
    return [
        [cell.printed(column.digits) for cell, column in zip(each.cells, table.columns, strict=True)]
        for each in table.rows
    ]


def labels(table: ResultTable) -> list[str]:
    return [column.label for column in table.columns]


def test_best_and_second_are_decided_on_what_is_printed() -> None:
    # 0.4 and 0.39999 both print as 40.00: they share the mark.
    cells = ranked([Cell(40.0), Cell(39.999), Cell(None), Cell(12.0)], 2)
    assert [(cell.best, cell.second) for cell in cells] == [(True, False), (True, False), (False, False), (False, True)]


def test_a_single_figure_is_not_marked_best() -> None:
    assert not ranked([Cell(40.0), Cell(None)], 2)[0].best


def test_an_average_over_chosen_sets_needs_all_of_them() -> None:
    rows = [row("raw", x=0.5, y=0.4), row("other", x=0.6)]
    table = table_of(rows, ("x", "y"))
    assert labels(table) == ["x", "y", "Avg. of 2 named", "IsoScore, 2 sets"]
    assert texts(table) == [["50.00", "40.00", "45.00", "0.500"], ["60.00", None, None, None]]


def test_no_average_over_what_happens_to_be_there() -> None:
    table = table_of([row("raw", x=0.5, y=0.4)])
    assert labels(table) == ["x", "y", "IsoScore, 2 sets"]
    partly = table_of([row("raw", scifact=0.5, nfcorpus=0.4)])
    assert labels(partly) == ["nfcorpus", "scifact", "IsoScore, 2 sets"]  # as BEIR's paper has them
    assert any(note.startswith("No average over BEIR: results exist for 2 of its 18 sets") for note in partly.notes)


def test_an_average_over_beir_is_called_by_its_sets() -> None:
    complete = dict.fromkeys((name.replace("-", "_") for name in PUBLIC), 0.5)
    lacking = {name: score for name, score in complete.items() if name != "fever"}
    table = table_of([row("whole", **complete), row("part", **lacking)])
    assert labels(table)[-2:] == ["Avg. 14", "IsoScore, 14 sets"]
    assert [each[-2] for each in texts(table)] == ["50.00", None]
    assert "Avg. 14: BEIR, 14 public sets." in table.caption


def test_the_paper_preset_has_the_guides_columns() -> None:
    complete = dict.fromkeys((name.replace("-", "_") for name in PUBLIC), 0.5)
    rows = [row("whole", **complete, msmarco=0.3)]
    table = build_scores(rows, paper_columns(rows), ComparisonSettings(), None, {})
    assert labels(table) == ["Avg. 14", "MS MARCO", "SciFact", "FiQA", "Isotropy"]
    assert texts(table) == [["50.00", "30.00", "50.00", "50.00", "0.500"]]
    few = [row("part", scifact=0.5)]
    table = build_scores(few, paper_columns(few), ComparisonSettings(), None, {})
    assert labels(table)[0] == "Avg. 18"
    assert texts(table) == [[None, None, "50.00", None, "0.500"]]
    with pytest.raises(UsageError, match=r"--preset paper: none of its datasets \(BEIR"):
        paper_columns([row("part", mine=0.5)])


def test_seeds_are_mean_and_deviation(scored: Path) -> None:
    table = build_table(scored / "results", TableOptions())
    rows = {each.stubs[0]: each.cells for each in table.rows}
    members = [
        json.loads((scored / f"results/isotropy-seed{seed}/one.json").read_text())["metrics"]["ndcg@10"]
        for seed in range(3)
    ]
    cell = rows["isotropy"][0]
    assert cell.value == pytest.approx(100 * sum(members) / 3)
    assert cell.deviation is not None
    assert (cell.seeds, len(cell.sources)) == (3, 3)
    assert rows["encoder (untouched)"][0].deviation is None
    assert "Mean ± standard deviation over 3 seeds." in table.caption


def test_marks_and_the_test_that_made_them(scored: Path) -> None:
    table = build_table(scored / "results", TableOptions())
    marks = {each.stubs[0]: each.cells[0].mark for each in table.rows}
    assert marks == {"encoder (untouched)": WORSE, "baseline": "", "isotropy": BETTER, "frozen": ""}
    assert table.notes[0] == (
        "† better, ‡ worse than baseline, p < 0.05: paired sign-flip test (100,000 flips) of per-query differences "
        "between means over seeds, and an interval that includes seed variance excludes 0. Holm correction over all "
        "comparisons of these results: 6 on datasets. No mark: no difference shown, or not tested."
    )
    by_bh = build_table(scored / "results", TableOptions(correction="bh"))
    assert "Benjamini-Hochberg correction over all comparisons of these results: 6 on datasets." in by_bh.notes[0]
    against = build_table(scored / "results", TableOptions(baseline="isotropy"))
    assert {each.stubs[0]: each.cells[0].mark for each in against.rows}["baseline"] == WORSE


def test_rows_are_chosen_and_the_baseline_need_not_be_among_them(scored: Path) -> None:
    table = build_table(scored / "results", TableOptions(rows=("isotropy",), datasets=("two",)))
    assert [each.stubs for each in table.rows] == [("isotropy",)]
    assert labels(table) == ["two", "IsoScore"]
    assert table.rows[0].cells[0].mark == BETTER


def test_a_row_that_lacks_one_seeds_result_has_no_figure(copied: Path) -> None:
    (copied / "results/frozen-seed1/two.json").unlink()
    table = build_table(copied / "results", TableOptions())
    cells = next(each.cells for each in table.rows if each.stubs == ("frozen",))
    assert cells[0].value is not None
    assert cells[1].value is None
    assert "frozen has no score on two: frozen-seed1 was not scored on it." in table.notes


def test_what_differs_between_rows_is_said(tmp_path: Path) -> None:
    data = [dataset_at(make_dataset(tmp_path / "data" / "one"))]
    score_model(tmp_path / "results", "long", data, 1.0, max_length=384)
    score_model(tmp_path / "results", "short", data, 1.0, max_length=256)
    score_model(tmp_path / "results", "short2", data, 1.0, max_length=256)
    notes = build_table(tmp_path / "results", TableOptions()).notes
    assert "Maximum tokens per text: 256, but long 384." in notes
    assert "Embeddings of 8 dimensions." in notes
    assert (
        "No significance marks: no arm trains the encoder without an isotropy term: name the baseline with "
        "--baseline." in notes
    )


def test_counts_that_differ_from_the_published_ones_are_said(tmp_path: Path) -> None:
    data = [dataset_at(make_dataset(tmp_path / "data" / "scifact"))]
    score_model(tmp_path / "results", "encoder", data, 1.0)
    notes = build_table(tmp_path / "results", TableOptions()).notes
    assert any(
        note.startswith("scifact differs from its published version: 40 judgements, but scifact has 339")
        for note in notes
    )


def test_one_seed_is_said(tmp_path: Path) -> None:
    data = [dataset_at(make_dataset(tmp_path / "data" / "one"))]
    score_model(tmp_path / "results", "baseline", data, 1.0, arm())
    assert "One seed each" in build_table(tmp_path / "results", TableOptions()).caption


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "ndcg"}, "--metric ndcg: the results have no such metric; did you mean"),
        ({"datasets": ("three",)}, "--datasets three: there is no result for it"),
        ({"preset": "papers"}, "--preset papers: there is no such preset; did you mean 'paper'"),
        ({"correction": "bonferroni"}, "--correction bonferroni"),
        ({"preset": "paper", "datasets": ("one",)}, "--datasets: the preset `paper` ignores it"),
        ({"preset": "geometry", "datasets": ("three",)}, "no isotropy was measured on it"),
        ({"preset": "robustness", "metric": "map"}, "--metric: the preset `robustness` ignores it"),
        ({"dollars_per_hour": 2.0}, "--dollars-per-hour: the preset `scores` ignores it"),
        ({"preset": "cost"}, "none of the models' run folders"),
        ({"preset": "cost", "dollars_per_hour": float("nan")}, "not a price"),
    ],
)
def test_what_cannot_be_shown(scored: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_table(scored / "results", TableOptions(runs=str(tmp_path), **options))


def test_geometry(scored: Path) -> None:
    table = build_table(scored / "results", TableOptions(preset="geometry"))
    assert table.stubs == ("model", "dataset", "of")
    assert len(table.rows) == 4 * 2 * 2
    line = dict(zip(labels(table), table.rows[0].cells, strict=True))
    assert (line["N"].value, line["D"].value) == (60, 8)
    low, score, high = (line[label].value for label in ("95 % from", "IsoScore", "95 % to"))
    assert low is not None
    assert score is not None
    assert high is not None
    assert low < score < high
    queries = next(each for each in table.rows if each.stubs[2] == "queries")
    assert queries.cells[-1].value is None  # hubness is of both sides and stands once


def test_geometry_alone_needs_no_scores(copied: Path) -> None:
    for path in (copied / "results").glob("*/one.json"):
        path.unlink()
    table = build_table(copied / "results", TableOptions(preset="geometry", datasets=("one",)))
    assert {each.stubs[1] for each in table.rows} == {"one"}


def test_robustness(scored: Path) -> None:
    table = build_table(scored / "results", TableOptions(preset="robustness"))
    assert labels(table) == ["as they are", "int8", "binary"]  # eight dimensions cannot be cut to 256
    first = table.rows[0].cells
    assert first[0].value is not None
    assert first[2].value is not None
    assert first[2].value < first[0].value


def test_robustness_that_was_not_measured(copied: Path) -> None:
    for path in (copied / "results").glob("*/*.json"):
        if path.name in ("one.json", "two.json"):
            content = json.loads(path.read_text())
            content["robustness"] = {}
            path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="no result has scores after int8") as raised:
        build_table(copied / "results", TableOptions(preset="robustness"))
    assert "--no-robustness" in raised.value.hint


def write_run(folder: Path, seed: int, hours: float, of: dict[str, Any] | None = None) -> None:
    """The folder of a run of the isotropy arm, or of another."""
    folder.mkdir(parents=True)
    environment = {
        "run_id": f"run{seed}",
        "plan": {"device_name": "NVIDIA A100-SXM4-40GB"},
        "model": {"trainable_parameters": 111_000_000},
        "spread": {"processes": 4},
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe_of(of or arm(1.0), seed)))
    rate = 1000 * 32 / (hours * 3600)
    lines = [{"step": step, "triples_per_second": rate} for step in (400, 1000)]
    (folder / "speed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_cost(scored: Path, tmp_path: Path) -> None:
    for seed, hours in enumerate([1.0, 2.0, 3.0]):
        write_run(tmp_path / f"isotropy-seed{seed}", seed, hours)
    options = TableOptions(preset="cost", runs=str(tmp_path), dollars_per_hour=3.0)
    table = build_table(scored / "results", options)
    cells = {each.stubs[0]: each.cells for each in table.rows}
    assert labels(table) == ["trainable parameters (M)", "triples/s", "devices", "device-hours", "dollars"]
    assert [cell.value for cell in cells["isotropy"]][0::2] == [111.0, 4.0, pytest.approx(24.0)]
    assert cells["isotropy"][3].value == pytest.approx(8.0)
    assert cells["isotropy"][3].deviation == pytest.approx(4.0)
    assert cells["baseline"][3].value is None
    assert [each.stubs for each in table.rows][:2] == [("baseline", "–"), ("isotropy", "NVIDIA A100-SXM4-40GB")]
    assert table.notes == ("No run folder was found for: baseline, frozen.",)


def test_metric_labels() -> None:
    assert [metric_label(name) for name in ("ndcg@10", "map", "capped_recall@100")] == [
        "nDCG@10", "MAP", "Capped recall@100",
    ]  # fmt: skip


def test_the_provenance_changes_with_the_results(copied: Path) -> None:
    before = build_table(copied / "results", TableOptions()).provenance
    path = copied / "results/encoder/one.json"
    content = json.loads(path.read_text())
    content["fingerprint"] = "another"
    path.write_text(json.dumps(content))
    assert build_table(copied / "results", TableOptions()).provenance != before


def test_folding_keeps_the_order_of_models() -> None:
    assert [each.name for each in fold([each.first for each in (row("b", x=1), row("a", x=1))])] == ["b", "a"]


def test_a_run_of_another_recipe_or_seed_is_not_the_models(scored: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "isotropy-seed0", 0, 1.0)
    write_run(tmp_path / "isotropy-seed1", 7, 1.0)
    write_run(tmp_path / "isotropy-seed2", 2, 1.0, arm(0.5))
    for seed in range(3):
        write_run(tmp_path / f"frozen-seed{seed}", seed + 10, 1.0, arm(1.0, frozen=True))
    table = build_table(scored / "results", TableOptions(preset="cost", runs=str(tmp_path)))
    cells = {each.stubs[0]: each.cells for each in table.rows}
    assert cells["isotropy"][1].value is None
    assert cells["frozen"][1].value is not None


def test_a_run_that_logged_nothing_yet(scored: Path, tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / f"isotropy-seed{seed}", seed, 1.0)
        (tmp_path / f"isotropy-seed{seed}/speed.jsonl").write_text("")
    table = build_table(scored / "results", TableOptions(preset="cost", runs=str(tmp_path)))
    assert next(each.cells for each in table.rows if each.stubs[0] == "isotropy")[1].value is None


def test_an_average_of_the_paper_preset_is_marked_by_all_its_sets(tmp_path: Path) -> None:
    from ragcun_cli.data.registry import FORUMS

    datasets = []
    for name in PUBLIC:
        folder = tmp_path / "data" / name
        for forum in FORUMS if name == "cqadupstack" else ("",):
            make_dataset(folder / forum, queries=4)
        datasets.append(dataset_at(folder))
    for seed in (0, 1, 2):
        score_model(tmp_path / "results", f"baseline-seed{seed}", datasets, 1.5, arm(), seed)
        score_model(tmp_path / "results", f"isotropy-seed{seed}", datasets, 0.2, arm(1.0), seed)
    table = build_table(tmp_path / "results", TableOptions(preset="paper"))
    assert labels(table) == ["Avg. 14", "MS MARCO", "SciFact", "FiQA", "Isotropy"]
    average = next(each.cells[0] for each in table.rows if each.stubs[0] == "isotropy")
    assert average.mark == BETTER
    assert "14 on datasets and, separately, 1 on averages" in table.notes[0]
    # CQADupStack's isotropy is a mean over forums, and still has an interval to compare by.
    assert json.loads((tmp_path / "results/isotropy-seed0/isotropy.json").read_text())["cqadupstack"]["passages"][
        "interval"
    ]


def test_rows_without_figures_stand_with_dashes(copied: Path) -> None:
    for path in (copied / "results/frozen-seed1").glob("two.*"):
        path.unlink()
    isotropy = copied / "results/frozen-seed1/isotropy.json"
    content = json.loads(isotropy.read_text())
    del content["two"]
    isotropy.write_text(json.dumps(content))
    for preset in ("geometry", "robustness"):
        table = build_table(copied / "results", TableOptions(preset=preset, datasets=("two",)))
        line = next(each.cells for each in table.rows if each.stubs[0] == "frozen")
        assert all(cell.value is None for cell in line)


def test_a_groups_name_stands_for_its_sets_that_are_scored(tmp_path: Path) -> None:
    data = [dataset_at(make_dataset(tmp_path / "data" / name)) for name in ("scifact", "mine")]
    score_model(tmp_path / "results", "encoder", data, 1.0)
    table = build_table(tmp_path / "results", TableOptions(datasets=("public",)))
    assert labels(table) == ["scifact", "IsoScore"]


def test_isotropy_alone_is_no_score(copied: Path) -> None:
    for path in (copied / "results").glob("*/*.json"):
        if path.name in ("one.json", "two.json"):
            path.unlink()
    with pytest.raises(UsageError, match="these results have no scores") as raised:
        build_table(copied / "results", TableOptions())
    assert "--preset geometry" in raised.value.hint
