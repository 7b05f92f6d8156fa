"""`data check`: what it counts, and that it finds what is wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ragcun_cli.data.checking import CheckReport, check_against, check_collection, check_triples, shortened
from ragcun_cli.data.collection import read_collection
from tests.conftest import COLLECTIONS, RunCommand
from tests.triple_tables import table_of


def findings(report: CheckReport) -> dict[str, tuple[int, int]]:
    return {each.what: (each.count, each.of) for each in report.findings}


def words(texts: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([len(text.split()) for text in texts], dtype=np.int64)


def test_triples() -> None:
    rows = [
        ("q1", "p1", ["n1"]),
        ("q2", "p2", ["n1", "p2"]),
        ("q1", "p1", ["n1"]),
        ("q3", "q3", []),
        ("q1", "p3", ["p1", "n1"]),
        ("q1", "p1", ["n1", "n2"]),
        ("q4 with four words", "p4", []),
    ]
    report = check_triples(table_of(rows), "mine", words, limit=3)
    assert report.counts == {
        "triples": 7,
        "distinct queries": 4,
        "distinct passages": 7,
        "hard negatives": 8,
        "triples without a hard negative": 2,
    }
    assert findings(report) == {
        "triples whose positive is also their negative": (1, 7),
        "triples whose query equals their positive": (1, 7),
        "duplicate triples": (1, 7),
        "triples with a negative that is a positive for the same query elsewhere": (1, 7),
    }
    assert report.findings[2].examples == ["triple 3: 'q1'"]
    queries, passages = report.lengths
    assert (queries.texts, queries.mean, queries.longest, queries.cut) == (4, 1.75, 4, 1)
    assert (passages.texts, passages.mean, passages.cut) == (7, 1.0, 0)
    clean = check_triples(table_of([("a", "b", ["c"])]), "mine", None, 3)
    assert (clean.findings, len(clean.checked), clean.lengths) == ([], 5, [])


def collection(folder: Path, corpus: list[str], queries: dict[str, str], qrels: dict[str, list[str]]) -> Path:
    (folder / "qrels").mkdir(parents=True)
    lines = [json.dumps({"_id": f"d{n}", "text": text}) for n, text in enumerate(corpus)]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "queries.jsonl").write_text("".join(json.dumps({"_id": i, "text": t}) + "\n" for i, t in queries.items()))
    for split, judged in qrels.items():
        rows = "".join(line.replace(" ", "\t") + "\n" for line in judged)
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
    return folder


def test_leakage_into_dev_and_test_sets(tmp_path: Path) -> None:
    folder = collection(
        tmp_path / "other", ["a passage", "another", "p1", "n1"], {"q1": "What is   THIS", "q2": "unseen"},
        {"test": ["q1 d2 1", "q2 d1 1"]},
    )  # fmt: skip
    table = table_of([("what is this?", "p1", ["n1"]), ("r", "p2", ["another"])])
    report = CheckReport("mine", {})
    check_against(report, table, {"other": read_collection(folder)})
    assert findings(report) == {
        "queries of other (test) that are training queries": (1, 2),
        "relevant passages of other (test) that are training positives": (1, 2),
        "passages of other that are training passages": (3, 4),
    }
    assert [each.examples[0] for each in report.findings] == ["'What is THIS'", "d2", "d1"]


def test_collections(tmp_path: Path) -> None:
    folder = collection(
        tmp_path / "tiny", ["one", "", "one", "four"],
        {"a": "Same words", "b": "same   WORDS!", "c": "other", "d": "more"},
        {"train": ["a d0 1", "c d3 1"], "test": ["b d0 1", "d d3 0", "d nowhere 1"]},
    )  # fmt: skip
    splits = {split: read_collection(folder, split) for split in ("train", "test")}
    report = check_collection(splits, "tiny", words, 384)
    assert report.counts == {
        "passages": 4, "train queries": 2, "train judgements": 2, "test queries": 2, "test judgements": 3,
    }  # fmt: skip
    assert findings(report) == {
        "passages with the same text as another": (1, 4),
        "empty passages": (1, 4),
        "test judgements of passages that are not in the corpus": (1, 3),
        "test queries that are also in an earlier split": (1, 2),
    }
    assert len(report.checked) == 11
    assert [each.of for each in report.lengths] == ["train queries", "test queries", "passages"]


def test_the_command(tmp_path: Path, ragcun: RunCommand) -> None:
    folder = collection(
        tmp_path / "scifact",
        ["p1", "p2"],
        {"q1": "one query", "q2": "two"},
        {"train": ["q1 d0 1"], "test": ["q2 d1 1"]},
    )
    triples = tmp_path / "t.jsonl"
    triples.write_text('{"query": "two", "positive": "p2", "negative": "p1"}\n{"query": "", "positive": "p"}\n')
    arguments = ["data", "check", triples, "--data-dir", tmp_path]
    done = ragcun(*arguments, "--json", "--dev", folder)
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)[0]
    assert report["findings"][0]["examples"][0].endswith("t.jsonl:2: 'query' is empty")
    assert [each["what"] for each in report["findings"]][1:3] == [
        "queries of the dev set (test) that are training queries",
        "relevant passages of the dev set (test) that are training positives",
    ]
    assert "nfcorpus" in report["not_checked"][0]
    assert report["lengths"][0]["of"] == "queries"
    strict = ragcun(*arguments, "--against", "scifact", "--strict", "--no-lengths")
    assert strict.exit_code == 1
    assert "queries of scifact (test) that are training queries" in strict.stdout
    assert "such as" in strict.stdout
    of_collection = ragcun("data", "check", "scifact", "--data-dir", tmp_path, "--strict", "--no-lengths")
    assert of_collection.exit_code == 0, of_collection.stdout
    missing = ragcun("data", "check", triples, "--against", "nfcorpus", "--data-dir", tmp_path)
    assert missing.exit_code == 2
    assert "ragcun data download nfcorpus" in " ".join(missing.stderr.split())
    for dev in ([], ["--dev", folder]):
        of_set = json.loads(ragcun("data", "check", folder, "--data-dir", tmp_path, "--json", *dev).stdout)[0]
        assert any("--dev" in each for each in of_set["not_checked"]) == (not dev)
    triples.write_text("{}\n")
    broken = ragcun("data", "check", triples, "--data-dir", tmp_path, "--no-lengths")
    assert broken.exit_code == 1
    assert "t.jsonl:1: 'query' is missing" in broken.stderr
    unknown = ragcun("data", "check", "scifcat", "--data-dir", tmp_path, "--no-lengths")
    assert (unknown.exit_code, "did you mean 'scifact'" in unknown.stderr) == (2, True)


def test_examples_are_one_short_line() -> None:
    assert shortened("a\n b\t" + "c" * 99, 70) == "a b " + "c" * 65 + "…"


# The same count on a collection made here stands above; this one is a fact about BEIR's texts.
@pytest.mark.skipif(not (COLLECTIONS / "scifact.zip").is_file(), reason="needs BEIR's SciFact, which cannot be shipped")
def test_scifact_repeats_two_train_queries_in_test(ragcun: RunCommand) -> None:
    done = ragcun("data", "check", COLLECTIONS / "scifact.zip", "--no-lengths", "--json")
    found = {each["what"]: each["count"] for each in json.loads(done.stdout)[0]["findings"]}
    assert found["test queries that are also in an earlier split"] == 2
