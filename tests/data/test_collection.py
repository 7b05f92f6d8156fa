"""Collections in BEIR's layout, from a folder and from a zip."""

from __future__ import annotations

import gzip
import json
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ragcun_cli.data.collection import read_collection
from ragcun_cli.errors import DataError, EnvironmentUnfit, UsageError
from tests.tiny_models import write_collection


def zipped(folder: Path, path: Path, prefix: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{prefix}{file.relative_to(folder).as_posix()}")
    return path


def test_folder_and_zip_give_the_same_collection(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "toy", 5)
    from_folder = read_collection(folder)
    for prefix in ("toy/", ""):
        from_zip = read_collection(zipped(folder, tmp_path / "toy.zip", prefix))
        assert (from_zip.sha256, from_zip.qrels) == (from_folder.sha256, from_folder.qrels)
        assert from_zip.corpus.texts() == from_folder.corpus.texts()
    assert from_folder.name == "toy"
    assert from_folder.split == "test"
    assert len(from_folder.corpus) == len(from_folder.queries) == 5
    assert from_folder.qrels["q3"] == {"d3": 1}


def test_title_and_text_are_joined_as_beir_does(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "toy", 3)
    records = [
        {"_id": "d0", "title": "A", "text": "b"},
        {"_id": "d1", "title": "", "text": "c"},
        {"_id": "d2", "text": ""},
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    corpus = read_collection(folder).corpus
    assert corpus.texts() == ["A b", "c", ""]  # an empty passage stays: FiQA has 38
    assert corpus.facts.empty_passages == 1


def test_only_judged_queries_are_scored_and_unknown_judgements_counted(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "toy", 4)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\tnowhere\t1\n")
    collection = read_collection(folder)
    assert collection.query_ids == ["q1"]
    assert collection.unknown_judgements == 1


def test_which_split(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "toy", 4, split="dev")
    assert read_collection(folder).split == "dev"
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    with pytest.raises(UsageError, match="has several splits"):
        read_collection(folder)
    assert read_collection(folder, "train").query_ids == ["q1"]
    with pytest.raises(UsageError, match="no split 'test'"):
        read_collection(folder, "test")


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("corpus.jsonl", '{"_id": "d0", "text": "x"}\n{"_id": "d1", "text": \n', "corpus.jsonl:2: not valid JSON"),
        ("corpus.jsonl", '{"text": "x"}\n', "corpus.jsonl:1: '_id' is missing"),
        ("queries.jsonl", '{"_id": "q0", "text": "x"}\n' * 2, "queries.jsonl:2: the id 'q0' was already used"),
        ("corpus.jsonl", '{"_id": "d0", "txt": "x"}\n', "corpus.jsonl:1: 'text' is missing"),
        ("queries.jsonl", '{"_id": "q0", "text": " "}\n', "queries.jsonl:1: 'text' is empty"),
        ("corpus.jsonl", "", "the file has no records"),
        ("queries.jsonl", '{"_id": "q0", "text": 7}\n', "queries.jsonl:1: 'text' must be text"),
        ("queries.jsonl", '{"_id": "other", "text": "x"}\n', "test.tsv:2: the query 'q0' is not in queries.jsonl"),
        ("qrels/test.tsv", "q0\td0\t1\n", "test.tsv:1: the header is missing"),
        ("qrels/test.tsv", "q0\td0\t1.0\nq1\td1\t1\n", "test.tsv:1: the header is missing"),
        ("qrels/test.tsv", "q0\td0\t1 \nq1\td1\t1\n", "test.tsv:1: the header is missing"),
        ("qrels/test.tsv", "garbage\nq1\td1\t1\n", "test.tsv:1: the header is missing"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq0\td0\tyes\n", "test.tsv:2: expected query-id"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq0 d0 1\n", "test.tsv:2: expected query-id"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq0\td0\t--1\n", "test.tsv:2: expected query-id"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq0\td0\t\u00b2\n", "test.tsv:2: expected query-id"),
        (
            "qrels/test.tsv",
            "query-id\tcorpus-id\tscore\nq0\td0\t1\nq0\td0\t2\n",
            "test.tsv:3: this pair has a different",
        ),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq0\td0\t" + "9" * 30 + "\n", "test.tsv:2: expected"),
        (
            "qrels/test.tsv",
            "query-id\tcorpus-id\tscore\nq0\tx\t1\n",
            "test.tsv:2: the passage 'x' is not in corpus.jsonl",
        ),
        ("corpus.jsonl", '{"_id": "a b", "text": "x"}\n', "corpus.jsonl:1: the id 'a b' contains whitespace"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\n", "the file has no judgements"),
    ],
)
def test_what_is_broken_is_named(tmp_path: Path, file: str, text: str, complaint: str) -> None:
    folder = write_collection(tmp_path / "toy", 3)
    (folder / file).write_text(text)
    with pytest.raises(DataError) as caught:
        read_collection(folder)
    assert complaint in caught.value.message


def test_what_is_not_a_collection(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such collection"):
        read_collection(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"corpus\.jsonl is missing"):
        read_collection(tmp_path)
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK not really")
    with pytest.raises(DataError, match="not a complete zip file"):
        read_collection(broken)


def test_a_damaged_zip_member_is_named(tmp_path: Path) -> None:
    path = zipped(write_collection(tmp_path / "toy", 50), tmp_path / "toy.zip", "toy/")
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF  # inside the first stored member
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read from the zip"):
        read_collection(path)


def test_a_zip_is_unpacked_once_and_again_if_the_copy_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAGCUN_CACHE", str(tmp_path / "cache"))
    path = zipped(write_collection(tmp_path / "toy", 5), tmp_path / "toy.zip", "toy/")
    expected = read_collection(path).corpus.texts()
    (copy,) = (tmp_path / "cache" / "unpacked").glob("*/corpus.jsonl")
    written = copy.stat().st_mtime_ns
    assert read_collection(path).corpus.texts() == expected
    assert copy.stat().st_mtime_ns == written
    copy.write_text(copy.read_text()[:-5])
    assert read_collection(path).corpus.texts() == expected
    assert "unpacking" in capsys.readouterr().err


def test_a_truncated_zip(tmp_path: Path) -> None:
    path = zipped(write_collection(tmp_path / "toy", 50), tmp_path / "toy.zip", "toy/")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="not a complete zip file"):
        read_collection(path)


def test_a_zip_writes_nothing_outside_of_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "toy.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../corpus.jsonl", '{"_id": "d0", "text": "x"}\n')
    with pytest.raises(DataError, match="refused as a file name"):
        read_collection(path)


@pytest.mark.parametrize(
    "name", ["/etc/corpus.jsonl", "C:/corpus.jsonl", "..\\corpus.jsonl", "a//corpus.jsonl", "a\x07/corpus.jsonl"]
)
def test_a_zip_with_a_hostile_name_is_refused_whole(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGCUN_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "toy.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("corpus.jsonl", '{"_id": "d0", "text": "x"}\n')
        archive.writestr(name, '{"_id": "d0", "text": "x"}\n')
    with pytest.raises(DataError, match=r"refused as a file name|outside the folder"):
        read_collection(path)
    assert not list((tmp_path / "cache").rglob("corpus.jsonl"))


def test_a_link_in_a_zip_becomes_a_plain_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its text would be read from wherever it leads."""
    monkeypatch.setenv("RAGCUN_CACHE", str(tmp_path / "cache"))
    folder = write_collection(tmp_path / "set", 3)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for each in folder.rglob("*"):
            if each.is_file() and each.name != "queries.jsonl":
                archive.write(each, each.relative_to(folder))
        link = zipfile.ZipInfo("queries.jsonl")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match=r"queries\.jsonl"):
        read_collection(tmp_path / "set.zip")
    (unpacked,) = (tmp_path / "cache").rglob("queries.jsonl")
    assert not unpacked.is_symlink()
    assert unpacked.read_text() == "/etc/passwd"


def test_a_zip_that_lists_its_own_top_is_read(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "set", 3)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("./", b"")
        for path in folder.rglob("*"):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    assert len(read_collection(tmp_path / "set.zip").corpus) == len(read_collection(folder).corpus)


def test_what_is_there_twice_or_is_a_pointer_is_refused(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "set", 3)
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress((folder / "corpus.jsonl").read_bytes()))
    with pytest.raises(DataError, match=r"contains both corpus\.jsonl and corpus\.jsonl\.gz"):
        read_collection(folder)
    (tmp_path / "own.zip").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    with pytest.raises(DataError, match="is a Git LFS pointer") as caught:
        read_collection(tmp_path / "own.zip")
    assert "git lfs pull" in caught.value.hint


def test_a_gz_made_to_fill_a_disk_is_not_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGCUN_CACHE", str(tmp_path / "cache"))
    folder = write_collection(tmp_path / "set", 3)
    line = json.dumps({"_id": "d9", "text": "a" * 20_000_000})
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(((folder / "corpus.jsonl").read_text() + line).encode()))
    (folder / "corpus.jsonl").unlink()
    with pytest.raises(DataError, match="looks like a zip bomb"):
        read_collection(folder)
    assert not list((tmp_path / "cache").rglob("corpus.jsonl"))


def test_a_zip_made_to_fill_a_disk_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGCUN_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("corpus.jsonl", '{"_id": "d0", "text": "' + " " * 50_000_000 + '"}\n')
        archive.writestr("queries.jsonl", '{"_id": "q0", "text": "x"}\n')
    with pytest.raises(DataError, match=r"KiB would become 47\.7 MiB: .*looks like a zip bomb"):
        read_collection(path)
    assert not list((tmp_path / "cache" / "unpacked").glob("*/"))


def test_a_zip_larger_than_the_disk_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1000, 900, 100))
    path = zipped(write_collection(tmp_path / "toy", 50), tmp_path / "toy.zip", "toy/")
    monkeypatch.setenv("RAGCUN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(EnvironmentUnfit, match=r"needs .* unpacked, but"):
        read_collection(path)
    assert not list((tmp_path / "cache" / "unpacked").glob("*/"))


def test_qrels_are_read_as_beir_reads_them(tmp_path: Path) -> None:
    """FEVER's ids are Wikipedia titles; a csv writer puts those with quotes into quotes."""
    import csv

    from beir.datasets.data_loader import GenericDataLoader

    ids = ['"Heroes"_(album)', "A\u00a0B", 'say_"it"', "it's", "12_O'Clock", "Ünïcödé"]
    folder = tmp_path / "fever"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"_id": each, "text": each}) + "\n" for each in ids))
    (folder / "queries.jsonl").write_text('{"_id": "1", "text": "x"}\n')
    with (folder / "qrels" / "test.tsv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerows([("query-id", "corpus-id", "score"), *(("1", each, 1) for each in ids)])
    _, _, expected = GenericDataLoader(str(folder)).load(split="test")
    collection = read_collection(folder)
    assert collection.qrels == expected
    assert collection.unknown_judgements == 0


def test_nothing_is_asked_of_queries_that_nobody_judged(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "toy", 3)
    with (folder / "queries.jsonl").open("a") as stream:
        stream.write('{"_id": "z", "text": ""}\n' * 2)
    assert len(read_collection(folder).queries) == 3


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_whatever_is_damaged_in_a_zip_the_error_is_ours(tmp_path: Path, compression: int) -> None:
    folder = write_collection(tmp_path / "toy", 8)
    whole = tmp_path / "toy.zip"
    with zipfile.ZipFile(whole, "w", compression) as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, f"toy/{file.relative_to(folder)}")
    content, random = whole.read_bytes(), np.random.default_rng(0)
    expected = read_collection(whole).corpus.texts()
    for _ in range(60):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 3):
            damaged[place] ^= 1 << int(random.integers(8))
        whole.write_bytes(damaged)
        said = None
        try:
            texts = read_collection(whole).corpus.texts()
        except (DataError, UsageError) as error:
            said = error.message
        # Or it was a bit that says nothing, such as a date's.
        assert texts == expected if said is None else str(whole) in said


def test_two_zips_may_be_unpacked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one is being unpacked another begins; neither sweeps away the other's half-filled folder."""
    from ragcun_cli.data import unpacked

    monkeypatch.setenv("RAGCUN_CACHE", str(tmp_path / "cache"))
    first, second = (
        zipped(write_collection(tmp_path / name, 5, seed=seed), tmp_path / f"{name}.zip", f"{name}/")
        for seed, name in enumerate(("first", "second"))
    )
    real, begun = unpacked._extract, []

    def extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, path: Path) -> None:
        real(archive, member, target, path)
        if path == first and not begun:
            begun.append(read_collection(second))

    monkeypatch.setattr(unpacked, "_extract", extract)
    assert len(read_collection(first).corpus) == 5
    assert len(begun[0].corpus) == 5
