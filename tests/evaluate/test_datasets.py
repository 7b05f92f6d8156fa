"""From names to datasets: what is here, what is missing and how it comes, and what does not look as published."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from ragcun_cli.data.registry import FORUMS
from ragcun_cli.errors import DataError, UsageError
from ragcun_cli.evaluate.datasets import find_datasets
from tests.tiny_models import write_collection


def found(names: str, folder: Path, split: str | None = None) -> list[str]:
    return [dataset.name for dataset in find_datasets(names.split(","), folder, split)[0]]


def test_names_paths_and_zips(tmp_path: Path) -> None:
    write_collection(tmp_path / "data" / "scifact", 3)
    mine = write_collection(tmp_path / "mine", 3, seed=2)
    with zipfile.ZipFile(tmp_path / "zipped.zip", "w") as archive:
        for path in mine.rglob("*"):
            if path.is_file():
                archive.write(path, f"mine/{path.relative_to(mine)}")
    names = f"scifact,{mine},{tmp_path / 'zipped.zip'}"
    assert found(names, tmp_path / "data") == ["scifact", "mine", "zipped"]
    assert found(str(tmp_path / "zipped"), tmp_path / "data") == ["zipped"]


def test_a_group_lists_what_is_missing_with_what_brings_it(tmp_path: Path) -> None:
    write_collection(tmp_path / "scifact", 3)
    datasets, missing = find_datasets(["all"], tmp_path, None)
    assert [dataset.name for dataset in datasets] == ["scifact"]
    assert len(missing) == 18
    how = {each.name: each.how for each in missing}
    assert how["bioasq"].startswith("licensed: BioASQ")
    assert "ragcun data download nfcorpus" in how["nfcorpus"]
    assert len(find_datasets(["public"], tmp_path, None)[1]) == 13
    with pytest.raises(UsageError, match=r"none of these is in .*\nnfcorpus: ragcun data download"):
        find_datasets(["nfcorpus"], tmp_path, None)


def test_a_zip_of_a_registry_name_must_be_beirs(tmp_path: Path) -> None:
    collection = write_collection(tmp_path / "x" / "scifact", 3)
    shutil.make_archive(str(tmp_path / "scifact"), "zip", collection.parent, "scifact")
    with pytest.raises(DataError, match=r"scifact\.zip: md5 is [0-9a-f]{32}, but BEIR's scifact\.zip has 5f7d1de6"):
        find_datasets(["scifact"], tmp_path, None)
    assert found(str(tmp_path / "scifact.zip"), tmp_path) == ["scifact"]  # by its path, as it is


def test_counts_that_differ_from_the_published_ones_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_collection(tmp_path / "scifact", 3)
    (dataset,), _ = find_datasets(["scifact"], tmp_path, None)
    assert dataset.counts[0] == "3 passages, but scifact has 5183"
    assert "3 queries, but scifact has 300" in capsys.readouterr().err


def test_ms_marco_is_scored_on_dev(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "msmarco", 3)
    shutil.copy(folder / "qrels" / "test.tsv", folder / "qrels" / "dev.tsv")
    assert find_datasets(["msmarco"], tmp_path, None)[0][0].split == "dev"
    assert find_datasets(["msmarco"], tmp_path, "test")[0][0].split == "test"
    (folder / "qrels" / "dev.tsv").unlink()
    with pytest.raises(UsageError, match="no split 'dev'"):
        find_datasets(["msmarco"], tmp_path, None)


def test_cqadupstack_is_its_twelve_forums_or_nothing(tmp_path: Path) -> None:
    for number, forum in enumerate(FORUMS):
        write_collection(tmp_path / "cqadupstack" / forum, 2, seed=number)
    (dataset,), _ = find_datasets(["cqadupstack"], tmp_path, None)
    assert tuple(dataset.parts) == FORUMS
    assert dataset.texts == 12 * 4
    shutil.make_archive(str(tmp_path / "zip" / "cqadupstack"), "zip", tmp_path, "cqadupstack")
    (zipped,), _ = find_datasets([str(tmp_path / "zip" / "cqadupstack.zip")], tmp_path, None)
    assert zipped.sha256 == dataset.sha256
    shutil.rmtree(tmp_path / "cqadupstack" / "unix")
    write_collection(tmp_path / "scifact", 2)
    found_now, missing = find_datasets(["cqadupstack", "scifact"], tmp_path, None)
    assert [dataset.name for dataset in found_now] == ["scifact"]
    assert "lacks unix/corpus.jsonl and 2 more; ragcun data download" in missing[0].how
    shutil.make_archive(str(tmp_path / "less" / "cqadupstack"), "zip", tmp_path, "cqadupstack")
    with pytest.raises(DataError, match="1 of 12 forums are missing: unix"):
        find_datasets([str(tmp_path / "less" / "cqadupstack.zip")], tmp_path, None)


def test_a_registered_name_means_what_is_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "nq").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    write_collection(tmp_path / "data" / "scifact", 2)
    (tmp_path / "data" / "fiqa").mkdir()
    datasets, missing = find_datasets(["all"], tmp_path / "data", None)
    assert [dataset.name for dataset in datasets] == ["scifact"]
    assert {each.name: each.how[:40] for each in missing}["nq"].startswith("ragcun data download nq")
    assert "fiqa/ lacks corpus.jsonl" in {each.name: each.how for each in missing}["fiqa"]
    assert found("SciFact", tmp_path / "data") == ["scifact"]
    own = write_collection(tmp_path / "home" / "mine", 2)
    monkeypatch.setenv("HOME", str(own.parent))
    assert found("~/mine", tmp_path) == ["mine"]


def test_what_cannot_be_meant(tmp_path: Path) -> None:
    write_collection(tmp_path / "scifact", 3)
    with pytest.raises(UsageError, match="did you mean 'scifact'"):
        find_datasets(["scifct"], tmp_path, None)
    with pytest.raises(UsageError, match="second dataset called scifact"):
        find_datasets(["scifact", str(write_collection(tmp_path / "other" / "scifact", 3))], tmp_path, None)
    write_collection(tmp_path / "model", 3)
    with pytest.raises(UsageError, match="cannot be called 'model'"):
        find_datasets(["model"], tmp_path, None)


def test_what_is_odd_in_a_collection_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_collection(tmp_path / "odd", 4)
    corpus = (folder / "corpus.jsonl").read_text()
    (folder / "corpus.jsonl").write_text(corpus + '{"_id": "d1", "text": "newer"}\n{"_id": "e", "text": ""}\n')
    with (folder / "qrels" / "test.tsv").open("a") as stream:
        stream.write("q1\tnowhere\t1\n")
    find_datasets([str(folder)], tmp_path, None)
    said = capsys.readouterr().err
    assert "1 of 5 judgements name passages missing from the corpus" in said
    assert "1 passages have an id that a later line has too, such as 'd1' on line 2" in said
    assert "1 passages are empty" in said
