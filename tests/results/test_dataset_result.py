"""A result's JSON, which is read as it was written or refused by what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ragcun_cli.errors import DataError
from ragcun_cli.results.dataset_result import DatasetResult, ScoredTexts
from tests.results.test_model_entry import ENTRY

TEXTS = ScoredTexts(
    name="one", path="data/one", found_at="/there/data/one", split="test", sha256="s", passages=60, queries=40,
    judgements=40, differs_from_published=None,
)  # fmt: skip


def result(folder: Path) -> DatasetResult:
    return DatasetResult(
        format=3, fingerprint="f", dataset=TEXTS, model=ENTRY, rules={"similarity": "cosine", "depth": 1000},
        metrics={"ndcg@10": 0.5}, robustness={"int8": None}, isotropy=None, versions={"ragcun": "1"}, command="eval",
        folder=folder,
    )  # fmt: skip


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    of_forums = replace(TEXTS, name="two", parts={"a": {"queries": 1}}, remark="a remark", differs_from_published=["x"])
    for each in (result(tmp_path), replace(result(tmp_path), dataset=of_forums, parts={"a": {"metrics": {}}})):
        each.write()
        assert DatasetResult.read(each.path) == DatasetResult.find(each.path) == each
    content = json.loads((tmp_path / "one.json").read_text())
    assert list(content) == [
        "format", "fingerprint", "dataset", "model", "rules", "precision", "metrics", "ties", "robustness",
        "robustness_ties", "isotropy", "search", "versions", "command", "files",
    ]  # fmt: skip
    assert not {"remark", "parts"} & set(content["dataset"])
    assert content["model"] == ENTRY.content()
    forums = json.loads((tmp_path / "two.json").read_text())
    assert (list(forums)[-1], list(forums["dataset"])[-2:]) == ("parts", ["remark", "parts"])


def test_what_lies_beside_it_and_what_it_was_scored_by(tmp_path: Path) -> None:
    one = result(tmp_path)
    assert [path.name for path in (one.path, one.per_query, one.run, one.spectrum)] == [
        "one.json", "one.queries.parquet", "one.run.gz", "one.spectrum.tsv",
    ]  # fmt: skip
    assert one.rules_of_column == {"depth": 1000}
    assert (one.name, one.split, one.sha256, one.queries) == ("one", "test", "s", 40)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda content: content.pop("metrics"), "KeyError.*metrics"),
        (lambda content: content["dataset"].pop("found_at"), "found_at"),
        (lambda content: content["model"].pop("identity"), "KeyError.*identity"),
        (lambda content: content["metrics"].update({"mrr": "high"}), "ValueError"),
        (lambda content: content.update(dataset=None), "TypeError|AttributeError"),
        (lambda content: content["dataset"].update(name="two"), "holds a result on two"),
    ],
)
def test_what_is_none_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], object], complaint: str) -> None:
    result(tmp_path).write()
    path = tmp_path / "one.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=complaint):
        DatasetResult.read(path)
    if "holds a result on" not in complaint:
        assert DatasetResult.find(path) is None
    assert DatasetResult.find(tmp_path / "nothing.json") is None
