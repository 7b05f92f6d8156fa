"""Judgements are read where their meaning is certain, and refused with the true reason elsewhere."""

from __future__ import annotations

import gzip
import unicodedata
import zipfile
from pathlib import Path

import pytest

from ragcun_cli.data.collection import read_collection
from ragcun_cli.data.naming import name_of
from ragcun_cli.data.qrels import qrels_lines, splits_in
from ragcun_cli.data.sources import available_collections
from ragcun_cli.errors import DataError, UsageError
from ragcun_cli.evaluate.datasets import find_datasets
from tests.data.test_collection import zipped
from tests.retrieval_tasks import write_task
from tests.tiny_models import write_collection

JUDGED = [("q0", "d1", 2), ("q1", "d0", 0), ("q1", "d2", 1)]


def read(tmp_path: Path, text: str, name: str = "test.tsv") -> list[tuple[str, str, int]]:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return [judgement[1:] for judgement in qrels_lines(path, "qrels/test.tsv")]


@pytest.mark.parametrize(
    "text",
    [
        "query-id\tcorpus-id\tscore\nq0\td1\t2\nq1\td0\t0\nq1\td2\t1\n",
        "\ufeffquery-id\tcorpus-id\tscore\r\nq0\td1\t2\r\n\r\nq1\td0\t0\r\nq1\td2\t1",
        "corpus-id\tquery-id\tscore\nd1\tq0\t2\nd0\tq1\t0\nd2\tq1\t1\n",  # swapped, and said so
        "score\tqid\tdocid\n2\tq0\td1\n0\tq1\td0\n1\tq1\td2\n",
        "query-id\tcorpus-id\tscore\tremark\nq0\td1\t2\tx\nq1\td0\t0\t\nq1\td2\t1\ty\n",
        "query-id\tcorpus-id\tscore\nq0\td1\t2.0\nq1\td0\t0.0\nq1\td2\t1.00\n",
        '"query-id"\t"corpus-id"\t"score"\n"q0"\t"d1"\t2\nq1\td0\t0\nq1\td2\t1\n',
        "q0 0 d1 2\nq1 0 d0 0\nq1\tQ0\td2\t1\n",  # TREC's, whose columns any blanks separate
        "q0\t0\td1\t2\nq1\t0\td0\t0\nq1\t0\td2\t1\n",
    ],
)
def test_what_is_certain_is_read(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == JUDGED
    assert read(tmp_path, text, "test.tsv.gz") == JUDGED


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("q0\td1\t0.7\nq1\td0\t1\n", ":1: the header is missing"),  # floats too: the first line is a judgement
        ("q0\td1\t1e0\n", ":1: the header is missing"),
        ("query-id\tcorpus-id\tweight\nq0\td1\t2\n", "names no column for: grade"),
        ("query-id\tqid\tcorpus-id\tscore\nq0\tq0\td1\t2\n", "has two columns for the query: query-id, qid"),
        ("query-id\tcorpus-id\tscore\nq0\td1\t0.5\n", ":2: expected query-id<TAB>corpus-id<TAB>grade (a whole number)"),
        ("corpus-id\tquery-id\tscore\nd1\tq0\n", ":2: expected corpus-id<TAB>query-id<TAB>grade"),
        ("q0 0 d1 2\nq1 0 d0 high\n", ":2: expected query, iteration, passage and a whole-number grade"),
        ("query-id\tcorpus-id\tscore\rq0\td1\t2\rq1\td0\t1\r", "lines end in CR only"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:12\n", "is a Git LFS pointer"),
    ],
)
def test_the_true_reason_is_said(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, text)
    assert complaint in caught.value.message


def test_utf16_is_named(tmp_path: Path) -> None:
    path = tmp_path / "test.tsv"
    path.write_text("query-id\tcorpus-id\tscore\nq0\td1\t2\n", encoding="utf-16")
    with pytest.raises(DataError, match="UTF-16") as caught:
        list(qrels_lines(path, "qrels/test.tsv"))
    assert "iconv" in caught.value.hint
    path.write_bytes(b"query-id\tcorpus-id\tscore\nq\xff\td1\t2\n")
    with pytest.raises(DataError, match=r"test\.tsv:2: not UTF-8 text \(byte 1\)"):
        list(qrels_lines(path, "qrels/test.tsv"))
    with (tmp_path / "cut.tsv.gz").open("wb") as stream:
        stream.write(gzip.compress(b"query-id\tcorpus-id\tscore\n" * 99)[:-9])
    with pytest.raises(DataError, match="damaged or incomplete"):
        list(qrels_lines(tmp_path / "cut.tsv.gz", "qrels/cut.tsv.gz"))


def test_quotes_inside_an_id_are_a_part_of_it(tmp_path: Path) -> None:
    ids = ['"Weird_Al"_Yankovic', 'say_"it', '"Heroes"', 'six"', '"']
    lines = "".join(f"q0\t{each}\t1\n" for each in (ids[0], ids[1], '"""Heroes"""', ids[3], ids[4]))
    assert [passage for _, passage, _ in read(tmp_path, f"query-id\tcorpus-id\tscore\n{lines}")] == ids


def test_a_judgement_of_what_is_not_there_is_an_error_by_line_but_for_a_handful(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def collection(name: str, lost: int) -> Path:
        grades = {"q": {"p": 1, **{f"gone{number}": 1 for number in range(lost)}}}
        return write_task(tmp_path / name, {"p": "x", "o": "y"}, {"q": "z"}, grades)

    few = find_datasets([str(collection("few", 5))], tmp_path, None)[0][0]
    assert few.parts["few"].unknown_judgements == 5
    assert (
        "5 of 6 judgements name passages missing from the corpus: 'gone0', 'gone1', 'gone2'" in capsys.readouterr().err
    )
    with pytest.raises(DataError) as caught:
        read_collection(collection("many", 6))
    assert "many/qrels/test.tsv:3: the passage 'gone0' is not in corpus.jsonl" in caught.value.message
    with pytest.raises(DataError, match="is not in"):
        read_collection(collection("fever", 6))
    # What the owners of a licensed set deliver has lost passages since.
    assert read_collection(collection("signal1m", 6)).unknown_judgements == 6


def test_an_id_in_another_normal_form_is_named(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    folder = write_task(tmp_path / "toy", {decomposed: "x"}, {"q": "y"}, {"q": {composed: 1}})
    with pytest.raises(DataError, match="differs only in Unicode normalisation"):
        read_collection(folder)
    folder = write_task(tmp_path / "toy2", {"p": "x"}, {decomposed: "y"}, {composed: {"p": 1}})
    with pytest.raises(DataError, match="differs only in Unicode normalisation"):
        read_collection(folder)


def test_a_number_as_an_id_says_how_to_write_it(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "toy", 3)
    (folder / "corpus.jsonl").write_text('{"_id": 7, "text": "x"}\n')
    with pytest.raises(DataError, match="'_id' must be text") as caught:
        read_collection(folder)
    assert caught.value.hint == 'Put it in quotes: "_id": "7"'


def test_gzipped_files_are_read_as_the_files_themselves(tmp_path: Path) -> None:
    plain = read_collection(write_collection(tmp_path / "plain", 6))
    folder = write_collection(tmp_path / "packed", 6)
    for path in [*folder.glob("*.jsonl"), *(folder / "qrels").iterdir()]:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    for place in (folder, zipped(folder, tmp_path / "packed.zip", "packed/")):
        packed = read_collection(place)
        assert (packed.corpus.texts(), packed.queries, packed.qrels) == (
            plain.corpus.texts(),
            plain.queries,
            plain.qrels,
        )
        assert (packed.name, packed.split) == ("packed", "test")
    (folder / "corpus.jsonl.gz").write_bytes((folder / "corpus.jsonl.gz").read_bytes()[:-6])
    with pytest.raises(DataError, match=r"corpus\.jsonl\.gz: damaged"):
        read_collection(folder)


def test_zips_as_windows_and_macos_make_them(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "toy", 4)
    path = tmp_path / "toy.ZIP"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(each for each in folder.rglob("*") if each.is_file()):
            archive.write(file, f"toy/{file.relative_to(folder)}")
            archive.writestr(f"toy/{file.relative_to(folder).with_name('._' + file.name)}", b"\x00\x05")
        archive.writestr("__MACOSX/toy/qrels/test.tsv", b"\x00\x05")
    assert (read_collection(path).qrels, read_collection(path).name) == (read_collection(folder).qrels, "toy")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(each for each in folder.rglob("*") if each.is_file()):
            member = zipfile.ZipInfo("toy/" + file.relative_to(folder).as_posix())
            member.filename = member.filename.replace("/", "\\")
            archive.writestr(member, file.read_bytes())
    assert read_collection(path).qrels == read_collection(folder).qrels
    assert available_collections(tmp_path) == ["toy"]
    (folder / "qrels" / "._test.tsv").write_bytes(b"\x00\x05")
    assert splits_in(folder) == ["test"]


def test_a_zip_of_two_collections_and_an_encrypted_one_say_so(tmp_path: Path) -> None:
    write_collection(tmp_path / "both" / "one", 3)
    write_collection(tmp_path / "both" / "two", 3)
    for place in (zipped(tmp_path / "both", tmp_path / "both.zip", ""), tmp_path / "both"):
        with pytest.raises(UsageError, match="contains 2 collections: one, two"):
            read_collection(place)
    path = zipped(write_collection(tmp_path / "toy", 3), tmp_path / "toy.zip", "toy/")
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag of encryption, in both lists
        at = content.find(signature)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(signature, at + 1)
    path.write_bytes(content)
    with pytest.raises(DataError, match="is encrypted"):
        read_collection(path)


def test_a_link_has_the_name_that_the_user_gave_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules go by the name: on ArguAna a query does not find itself, and its counts are compared."""
    target = write_task(tmp_path / "disk" / "v7", {"p": "x", "q": "y"}, {"q": "y"}, {"q": {"p": 1}})
    data = tmp_path / "data"
    data.mkdir()
    (data / "arguana").symlink_to(target)
    found = find_datasets(["arguana"], data, None)[0][0]
    assert (found.name, found.known is not None) == ("arguana", True)
    assert any("but arguana has 8674" in difference for difference in found.counts)
    assert read_collection(data / "arguana").name == "arguana"
    (data / "own.zip").symlink_to(zipped(target, tmp_path / "disk" / "x.zip", "x/"))
    assert read_collection(data / "own.zip").name == "own"


def test_another_split_is_scored_only_if_it_is_named(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "own", 5, split="dev")
    with pytest.raises(UsageError, match="no split 'test'; it has dev") as caught:
        find_datasets([str(folder)], tmp_path, None)
    assert caught.value.hint == "Choose one: --split dev"
    (found,), _ = find_datasets([str(folder)], tmp_path, "dev")
    assert found.scored == "own (dev, 5 queries)"


def test_queries_keep_their_blanks(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "toy", {"p": "x"}, {"q": "  two words "}, {"q": {"p": 1}})
    assert read_collection(folder).queries == ["  two words "]


def test_quoted_cells_and_mixed_blanks_are_read_and_other_separators_named(tmp_path: Path) -> None:
    path = tmp_path / "test.tsv"
    path.write_text('"query-id"\t"corpus-id"\t"score"\n"q0"\t"d0"\t"1"\n"q1"\t"d1"\t"1.0"\n')
    assert list(qrels_lines(path, "x")) == [(2, "q0", "d0", 1), (3, "q1", "d1", 1)]
    path.write_text("q0 0\td0 2\nq1\t0 d1\t1\n")
    assert list(qrels_lines(path, "x")) == [(1, "q0", "d0", 2), (2, "q1", "d1", 1)]
    for separator, shown in ((",", "commas"), (";", "semicolons"), ("  ", "spaces")):
        path.write_text(separator.join(["query-id", "corpus-id", "score"]) + "\n")
        with pytest.raises(DataError, match=f"its columns are separated by {shown}, not by tabs"):
            list(qrels_lines(path, "x"))


def test_judgements_that_are_there_twice_or_under_another_ending_are_named(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "own", 4)
    (folder / "qrels" / "test.tsv.gz").write_bytes(gzip.compress(b"query-id\tcorpus-id\tscore\nq0\td0\t1\n"))
    with pytest.raises(DataError, match=r"test\.tsv and test\.tsv\.gz both exist"):
        read_collection(folder)
    (folder / "qrels" / "test.tsv.gz").unlink()
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "test.TSV")
    with pytest.raises(UsageError, match=r"qrels/<split>\.tsv is missing \(qrels/ has test\.TSV\)"):
        read_collection(folder)


def test_zips_of_several_levels_are_refused_and_any_ending_and_link_is_found(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "own", 4)
    with zipfile.ZipFile(tmp_path / "uneven.zip", "w") as archive:
        for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
            archive.write(folder / name, f"a/{name}")
            archive.write(folder / name, f"b/c/{name}")
    with pytest.raises(DataError, match="has collections at several levels: a, b/c"):
        read_collection(tmp_path / "uneven.zip")
    (tmp_path / "data").mkdir()
    zipped(folder, tmp_path / "data" / "V.Zip", "x/")
    (tmp_path / "data" / "fiqa").symlink_to(tmp_path / "data" / "V.Zip")
    for name, called in (("V", "V"), (str(tmp_path / "data" / "fiqa"), "fiqa")):
        assert find_datasets([name], tmp_path / "data", None)[0][0].name == called


def test_the_folder_one_stands_in_has_the_name_that_led_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_collection(tmp_path / "real", 4)
    (tmp_path / "arguana").symlink_to(folder)
    monkeypatch.chdir(tmp_path / "arguana")
    monkeypatch.setenv("PWD", str(tmp_path / "arguana"))
    assert name_of(Path()) == "arguana"
    monkeypatch.setenv("PWD", str(tmp_path))  # of another shell
    assert name_of(Path()) == "real"
