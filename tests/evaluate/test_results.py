"""What is written of an evaluation, and what is never mixed."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
import pytrec_eval

from ragcun_cli.data.registry import FORUMS
from ragcun_cli.errors import UsageError
from ragcun_cli.evaluate import results
from ragcun_cli.evaluate.datasets import Dataset, find_datasets
from ragcun_cli.evaluate.results import check_results_folder, claim_results_folder, write_results
from ragcun_cli.evaluate.scoring import Scheme, evaluate
from ragcun_cli.evaluate.search import search
from ragcun_cli.results.model_entry import ModelEntry
from tests.retrieval_tasks import embedded_by, write_task


def encode(texts: list[str]) -> np.ndarray:
    return np.array([[float(text), 0.5 * float(text) ** 2] for text in texts], dtype=np.float32)


def dataset(folder: Path, name: str = "toy") -> Dataset:
    passages = {f"p{number}": f"{number / 7}" for number in range(6)}
    qrels = {"q1": {"p1": 1}, "q2": {"p3": 2, "p0": 1}}
    path = write_task(folder / name, passages, {"q1": "0.1", "q2": "0.2"}, qrels)
    return find_datasets([str(path)], folder, None)[0][0]


def entry(name: str = "model", identity: str = "sha256:" + "1" * 64) -> ModelEntry:
    return ModelEntry.of({
        "name": name, "kind": "untouched", "identity": identity, "output_dim": 2, "max_length": 8, "arm": None,
        "precision": "float32", "similarity": "euclidean", "transform": "none", "fit_on": None,
        "fit_sha256": None,
        "tokenizer_sha256": "2" * 64,
    })  # fmt: skip


def claimed(root: Path, model: ModelEntry, data: Dataset, overwrite: bool = False) -> Path:
    folder = check_results_folder(root, model, [data], overwrite)
    claim_results_folder(folder, model)
    return folder


def written(root: Path, data: Dataset, model: ModelEntry | None = None) -> Path:
    folder = claimed(root, model or entry(), data)
    parts = {
        name: evaluate(embedded_by(encode, part), part, Scheme(), None, search, True, root)
        for name, part in data.parts.items()
    }
    write_results(folder, model or entry(), data, parts, {"precision": "float32"})
    return folder


def test_what_is_written(tmp_path: Path) -> None:
    folder = written(tmp_path, dataset(tmp_path))
    result = json.loads((folder / "toy.json").read_text())
    assert result["metrics"]["mrr"] == pytest.approx((1 + 1 / 3) / 2)
    assert result["dataset"]["queries"] == 2
    assert result["rules"]["identical_ids_dropped"] is False
    assert result["search"] == {"precision": "float32", "unproven": 0}
    assert {"ragcun", "python", "numpy"} <= set(result["versions"])
    assert len(result["fingerprint"]) == 32
    assert {"int8", "binary"} <= set(result["robustness"])
    run = gzip.decompress((folder / "toy.run.gz").read_bytes()).decode().splitlines()
    assert run[:2] == ["q1 Q0 p1 1 6 model", "q1 Q0 p0 2 5 model"]
    table = parquet.read_table(folder / "toy.queries.parquet").to_pydict()
    assert table["query_id"] == ["q1", "q2"]
    assert table["mrr"] == pytest.approx([1.0, 1 / 3])
    assert set(result["metrics"]) == set(table) - {"query_id"}
    isotropy = json.loads((folder / "isotropy.json").read_text())["toy"]
    assert (isotropy["passages"]["texts"], isotropy["queries"]) == (6, None)  # two queries have no shape
    spectrum = (folder / "toy.spectrum.tsv").read_text().splitlines()
    assert (spectrum[0], len(spectrum)) == ("number\teigenvalue_passages\tdeviation_passages", 3)


def test_the_run_file_scores_as_the_result_says(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    folder = written(tmp_path, data)
    with gzip.open(folder / "toy.run.gz", "rt") as stream:
        run = pytrec_eval.parse_run(stream)
    theirs = pytrec_eval.RelevanceEvaluator(data.parts["toy"].qrels, {"ndcg_cut.10"}).evaluate(run)
    mean = sum(each["ndcg_cut_10"] for each in theirs.values()) / 2
    assert json.loads((folder / "toy.json").read_text())["metrics"]["ndcg@10"] == pytest.approx(mean, abs=1e-9)


def test_forums_are_averaged_with_the_same_weight(tmp_path: Path) -> None:
    passages = {f"p{number}": f"{number / 7}" for number in range(6)}
    for number, forum in enumerate(FORUMS):
        queries = {f"q{each}": "0.9" for each in range(1 + number)}  # more queries in later forums
        nearest = "p5" if number < 3 else "p0"
        write_task(tmp_path / "cqadupstack" / forum, passages, queries, {query: {nearest: 1} for query in queries})
    data = find_datasets([str(tmp_path / "cqadupstack")], tmp_path, None)[0][0]
    folder = written(tmp_path / "results", data)
    result = json.loads((folder / "cqadupstack.json").read_text())
    assert result["metrics"]["precision@1"] == 3 / 12
    assert result["parts"]["android"]["metrics"]["precision@1"] == 1.0
    assert result["rules"]["average"] == "unweighted mean of parts"
    assert result["dataset"]["queries"] == sum(range(1, 13))
    ids = parquet.read_table(folder / "cqadupstack.queries.parquet")["query_id"].to_pylist()
    assert ids[0] == "android/q0"
    assert len(set(ids)) == sum(range(1, 13))


def test_the_same_results_are_the_same_bytes(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    folders = [written(tmp_path / name, data) for name in ("one", "other")]
    for name in ("toy.run.gz", "toy.queries.parquet", "toy.spectrum.tsv", "toy.histograms", "toy.json"):
        assert len({(folder / name).read_bytes() for folder in folders}) == 1


def test_results_of_another_model_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = dataset(tmp_path)
    folder = written(tmp_path, data)
    claimed(tmp_path, entry(), data)  # the same weights: more datasets may join
    others = [
        entry(identity="sha256:" + "3" * 64),
        replace(entry(), precision="bf16"),
        replace(entry(), transform="center"),
    ]
    for other in others:
        with pytest.raises(
            UsageError,
            match=r"holds results of another model of this name: (identity|precision|transform) .* there, .* here",
        ):
            claimed(tmp_path, other, data)
    assert (folder / "toy.json").exists()
    claimed(tmp_path, others[0], data, overwrite=True)
    assert "removing the other model's results (toy)" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["model.json"]


def test_a_result_on_other_texts_is_not_replaced_unasked(tmp_path: Path) -> None:
    written(tmp_path, dataset(tmp_path))
    other = dataset(tmp_path / "elsewhere")
    check_results_folder(tmp_path, entry(), [other], overwrite=False)  # the same texts
    corpus = tmp_path / "elsewhere" / "toy" / "corpus.jsonl"
    corpus.write_text(corpus.read_text() + '{"_id": "p9", "text": "3"}\n')
    changed = find_datasets([str(corpus.parent)], tmp_path, None)[0]
    with pytest.raises(UsageError, match="on other texts or judgements"):
        check_results_folder(tmp_path, entry(), changed, overwrite=False)
    check_results_folder(tmp_path, entry(), changed, overwrite=True)


def test_a_results_folder_without_its_identity_is_another_models(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("{}")
    with pytest.raises(UsageError, match="another model of this name"):
        claimed(tmp_path, entry(), data)


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.tex").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="not a ragcun results"):
            claimed(tmp_path, entry(), data, overwrite)
    assert (tmp_path / "model" / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize("part", ["write_per_query", "write_run"])
def test_a_full_disk_leaves_no_part_of_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    first = dataset(tmp_path)
    monkeypatch.setattr(results, part, full)
    with pytest.raises(OSError, match="No space left"):
        written(tmp_path / "results", first)
    assert list((tmp_path / "results").iterdir()) == []
    monkeypatch.undo()
    folder = written(tmp_path / "results", first)
    before = sorted(folder.iterdir())
    monkeypatch.setattr(results, part, full)
    with pytest.raises(OSError, match="No space left"):
        written(tmp_path / "results", dataset(tmp_path, "other"))
    assert sorted(folder.iterdir()) == before


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")
