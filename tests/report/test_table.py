"""The table: marks, averages, missing figures, and every format."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from ragcun_cli.errors import DataError, UsageError
from ragcun_cli.report.collect import DatasetResult, ModelResults, collect
from ragcun_cli.report.formats import to_csv, to_json, to_latex, to_markdown
from ragcun_cli.report.table import build_table


def result(score: float, isoscore: float | None = 0.5, sha256: str = "s") -> DatasetResult:
    metrics = {"ndcg@10": score, "recall@100": score, "map": score, "mrr": score}
    return DatasetResult(metrics, isoscore, 300, "test", sha256)


def model(name: str, **scores: float) -> ModelResults:
    return ModelResults(
        name,
        name == "raw",
        None,
        8 if name == "raw" else 9,
        "euclidean",
        {dataset: result(score) for dataset, score in scores.items()},
    )


MODELS = [model("raw", x=0.5, y=0.4), model("arm_1", x=0.6, y=0.39999), model("arm_2", x=0.55)]


def test_best_and_second_are_decided_on_what_is_printed() -> None:
    table = build_table(MODELS, "ndcg@10")
    x, y = ([row[column] for row in table.rows] for column in (0, 1))
    assert [(cell.text, cell.best, cell.second) for cell in x] == [
        ("50.00", False, False), ("60.00", True, False), ("55.00", False, True),
    ]  # fmt: skip
    # 0.4 and 0.39999 both print as 40.00: they share the mark.
    assert [(cell.text, cell.best, cell.second) for cell in y] == [
        ("40.00", True, False), ("40.00", True, False), (None, False, False),
    ]  # fmt: skip


def test_an_incomplete_row_has_no_average() -> None:
    table = build_table(MODELS, "ndcg@10")
    assert table.columns == ["x", "y", "Avg of 2", "IsoScore, avg of 2"]
    assert [row[2].text for row in table.rows] == ["45.00", "50.00", None]
    assert [row[3].text for row in table.rows] == ["0.500", "0.500", None]


def test_one_dataset_has_no_average() -> None:
    assert build_table(MODELS, "ndcg@10", ["y"]).columns == ["y", "IsoScore"]


def test_a_single_row_is_not_marked_best() -> None:
    assert not build_table(MODELS[:1], "ndcg@10").rows[0][0].best


def test_the_caption_says_what_the_figures_are() -> None:
    caption = build_table(MODELS, "recall@100").caption
    assert "Recall@100 x 100, Euclidean distance, exact search" in caption
    assert "x: 300 queries (test)" in caption
    assert "Dimensions: raw 8, arm_1 9, arm_2 9." in caption
    assert "Embeddings of 9 dimensions." in build_table(MODELS[1:], "map").caption


def test_unknown_metric_and_dataset() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'ndcg@10'"):
        build_table(MODELS, "ndcg")
    with pytest.raises(UsageError, match="no result for it"):
        build_table(MODELS, "map", ["z"])


def test_markdown() -> None:
    lines = to_markdown(build_table(MODELS, "ndcg@10")).splitlines()
    assert lines[0] == "| model | x | y | Avg of 2 | IsoScore, avg of 2 |"
    assert lines[3] == r"| arm\_1 | **60.00** | **40.00** | **50.00** | 0.500 |"
    assert lines[4] == r"| arm\_2 | <u>55.00</u> | – | – | – |"


def test_latex_is_booktabs_with_everything_escaped() -> None:
    text = to_latex(build_table([model("raw", **{"a_b&c%": 0.5}), model("arm_1#", **{"a_b&c%": 0.6})], "ndcg@10"))
    assert r"\toprule" in text
    assert r"Model & a\_b\&c\% & IsoScore \\" in text
    assert r"arm\_1\# & \textbf{60.00} & 0.500 \\" in text
    assert r"raw (untouched) & \underline{50.00} & 0.500 \\" in text
    assert r"a\_b\&c\%: 300 queries" in text


def test_csv_and_json_are_plain_figures() -> None:
    table = build_table(MODELS, "ndcg@10")
    rows = list(csv.reader(io.StringIO(to_csv(table))))
    assert rows[0] == ["model", "x", "y", "Avg of 2", "IsoScore, avg of 2"]
    assert rows[3] == ["arm_2", "55.00000000000001", "", "", ""]
    assert rows[2][2] == "39.999"  # unrounded: two figures that print alike need not be equal
    content = json.loads(to_json(table))
    assert content["rows"][1]["y"] == pytest.approx(39.999)
    assert content["rows"][2]["y"] is None
    assert "bold" not in content["caption"]


def write_result(root: Path, name: str, dataset: str, arm: dict[str, object] | None, sha256: str = "s") -> None:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    entry = {"name": name, "kind": "trained" if arm else "untouched", "arm": arm, "output_dim": 4}
    entry["transform"] = "none"
    entry["similarity"] = "cosine" if name.endswith("+cosine") else "euclidean"
    (folder / "model.json").write_text(json.dumps(entry))
    content = {
        "dataset": {"name": dataset, "queries": 3, "split": "test", "sha256": sha256},
        "metrics": {"ndcg@10": 0.5, "recall@100": 0.5, "map": 0.5, "mrr": 0.5},
        "isotropy": None,
    }
    (folder / f"{dataset}.json").write_text(json.dumps(content))


def test_the_untouched_encoder_comes_first_then_arms_by_what_they_add(tmp_path: Path) -> None:
    write_result(tmp_path, "a-frozen", "x", {"freeze_base": True, "lambda_isotropy": 1, "lambda_reg": 0.1})
    write_result(tmp_path, "b-isotropy", "x", {"freeze_base": False, "lambda_isotropy": 1, "lambda_reg": 0.1})
    write_result(tmp_path, "c-baseline", "x", {"freeze_base": False, "lambda_isotropy": 0, "lambda_reg": 0})
    write_result(tmp_path, "d-raw", "x", None)
    (tmp_path / "not-a-result").mkdir()
    assert [found.name for found in collect(tmp_path)] == ["d-raw", "c-baseline", "b-isotropy", "a-frozen"]


def test_the_caption_says_how_embeddings_were_compared(tmp_path: Path) -> None:
    write_result(tmp_path, "one", "x", None)
    assert "Euclidean distance, exact search" in build_table(collect(tmp_path), "ndcg@10").caption
    write_result(tmp_path, "one+cosine", "x", None)
    both = build_table(collect(tmp_path), "ndcg@10").caption
    assert "Euclidean distance, in rows with +cosine the cosine, exact search" in both


def test_figures_on_different_texts_do_not_stand_in_one_column(tmp_path: Path) -> None:
    write_result(tmp_path, "one", "x", None, "s")
    write_result(tmp_path, "two", "x", None, "t")
    with pytest.raises(DataError, match="different texts or judgements"):
        collect(tmp_path)


def test_no_results_and_broken_results(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no results here"):
        collect(tmp_path / "nowhere")
    write_result(tmp_path, "one", "x", None)
    (tmp_path / "one" / "x.json").write_text("{")
    with pytest.raises(DataError, match=r"x\.json: not valid JSON"):
        collect(tmp_path)
    (tmp_path / "one" / "x.json").write_text("{}")
    with pytest.raises(DataError, match=r"x\.json: not a result of ragcun"):
        collect(tmp_path)
