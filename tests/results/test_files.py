"""What is written is read as it was, and what is damaged is refused by its path."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from ragcun_cli.errors import DataError
from ragcun_cli.results.histograms import measure_histograms, read_histograms, write_histograms
from ragcun_cli.results.json_files import find_json, read_json, try_json
from ragcun_cli.results.per_query import read_per_query, write_per_query
from ragcun_cli.results.spectrum import DEVIATIONS, EIGENVALUES, column, read_spectrum, write_spectrum
from ragcun_cli.results.trec_run import read_run, rename_run, run_lines, write_run

RANKED = [("q 1", ["a b", "c"], [2, 1]), ("q2", ["c"], [1]), ("q3", [], [])]


def test_a_run(tmp_path: Path) -> None:
    path = tmp_path / "toy.run.gz"
    write_run(path, RANKED, "my model")
    assert gzip.decompress(path.read_bytes()).decode().splitlines()[:2] == [
        "q 1 Q0 a b 1 2 my_model", "q 1 Q0 c 2 1 my_model",
    ]  # fmt: skip
    assert list(run_lines(path)) == [("q 1", "a b"), ("q 1", "c"), ("q2", "c")]
    assert read_run(path, {"q 1"}) == {"q 1": ["a b", "c"]}
    before = list(run_lines(path))
    rename_run(path, "another one")
    assert list(run_lines(path)) == before
    assert gzip.decompress(path.read_bytes()).decode().endswith(" another_one\n")
    write_run(tmp_path / "again.run.gz", RANKED, "another one")
    assert (tmp_path / "again.run.gz").read_bytes() == path.read_bytes()  # no time stamp
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"toy\.run\.gz cannot be read"):
        list(run_lines(path))


def test_scores_of_queries(tmp_path: Path) -> None:
    path = tmp_path / "toy.queries.parquet"
    write_per_query(path, ["q1", "q2"], {"mrr": np.array([1.0, 0.5]), "map": np.array([0.25, 0.125])})
    every = read_per_query(path)
    assert every.query_ids == ["q1", "q2"]
    assert {name: values.tolist() for name, values in every.figures.items()} == {
        "mrr": [1.0, 0.5], "map": [0.25, 0.125],
    }  # fmt: skip
    assert list(read_per_query(path, ["map"]).figures) == ["map"]
    with pytest.raises(DataError, match=r"toy\.queries\.parquet: has no readable per-query scores of ndcg"):
        read_per_query(path, ["ndcg"])
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"toy\.queries\.parquet cannot be read"):
        read_per_query(path)


def test_a_spectrum(tmp_path: Path) -> None:
    path = tmp_path / "toy.spectrum.tsv"
    names = (column(EIGENVALUES, "passages"), column(DEVIATIONS, "queries"))
    write_spectrum(path, {name: np.array([3.0, 1 / 3]) for name in names})
    assert path.read_text().splitlines()[0] == "number\teigenvalue_passages\tdeviation_queries"
    read = read_spectrum(path)
    assert read["number"].tolist() == [1, 2]
    assert all(read[name] == pytest.approx([3.0, 1 / 3], rel=1e-8) for name in names)
    path.write_text("number\teigenvalue_passages\n1\tmany\n")
    with pytest.raises(DataError, match=r"toy\.spectrum\.tsv: the spectrum cannot be read"):
        read_spectrum(path)


def test_histograms(tmp_path: Path) -> None:
    path = tmp_path / "toy.histograms"
    vectors = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    measured = measure_histograms(vectors, vectors, np.arange(30), vectors)
    write_histograms(path, measured)
    read = read_histograms(path)
    assert read.mean_square_length == measured.mean_square_length
    for name in ("positives", "random", "passages", "queries"):
        assert (getattr(read, name) == getattr(measured, name)).all()
    path.write_text('{"cosine": {}}')
    with pytest.raises(DataError, match=r"toy\.histograms: the histograms cannot be read"):
        read_histograms(path)


def test_json_strictly_and_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "toy.json"
    for content, complaint in (
        ("[1]", "not a ragcun results file"),
        ("{", "not valid JSON"),
        ('{"a": {"b": [1, NaN]}}', r"a\.b is nan, which is not a valid figure"),
        ('{"a": Infinity}', "a is inf, which is not a valid figure"),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match=complaint):
            read_json(path)
    path.write_text("[1]")
    assert (find_json(path), try_json(path)) == (None, {})
    path.write_text('{"a": 1}')
    assert read_json(path) == find_json(path) == try_json(path) == {"a": 1}
