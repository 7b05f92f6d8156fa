"""Files as spreadsheets and other programs write them: read where they are certain, refused with the true reason."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from ragcun_cli.data.texts import read_texts
from ragcun_cli.data.triples.prepared import open_triples
from ragcun_cli.errors import DataError
from tests.conftest import RunCommand
from tests.triple_tables import rows_of

ROWS = [
    ('He said "hi"', "a tab\tand a comma, here", "n"),
    ("two\nlines", '"all of it"', 'x "y"'),
    ("plain", "plain too", "also"),
]
HEADER = ("query", "positive", "negative")


def triples(path: Path) -> list[tuple[str, str, list[str]]]:
    return sorted(rows_of(open_triples(path)[0]))


def test_a_tsv_in_csv_quotes_is_read_without_them(tmp_path: Path) -> None:
    path = tmp_path / "excel.tsv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter="\t", quoting=csv.QUOTE_ALL).writerows([HEADER, *ROWS])
    assert triples(path) == sorted((query, positive, [negative]) for query, positive, negative in ROWS)
    texts = tmp_path / "texts.tsv"
    with texts.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter="\t", quoting=csv.QUOTE_ALL).writerows(
            [("id", "text"), *(row[:2] for row in ROWS)]
        )
    assert [text for _, text in read_texts(texts, None)] == [row[1] for row in ROWS]


def test_quotes_in_a_plain_tsv_are_a_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "plain.tsv"
    path.write_text('query\tpositive\n"quoted"\tan "inner" one\n"half\tx\n')
    assert triples(path) == [('"half', "x", []), ('"quoted"', 'an "inner" one', [])]


@pytest.mark.parametrize(
    "rows",
    [
        'q 1\t"He said ""hi"" there"\tn',
        'q 1\tp\t"two\nlines"',
        'q 1\t"two\nlines"\tn',
        '"two\nlines"\tp\tn',
    ],
)
def test_a_tsv_where_only_some_cells_are_in_quotes_is_refused(tmp_path: Path, rows: str) -> None:
    """As spreadsheets write it: a cell is quoted where it has quotes, tabs or line ends in it."""
    path = tmp_path / "excel.tsv"
    path.write_text(f"query\tpositive\tnegative\nq 0\tp 0\tn 0\n{rows}\nq 2\tp 2\tn 2\n")
    if rows.startswith(('q 1\tp\t"two', '"two')):  # the line that goes on has a single cell
        with pytest.raises(DataError, match=r"2 or 3 columns expected|a cell is quoted"):
            open_triples(path)
        return
    with pytest.raises(DataError, match=r"excel\.tsv:[34]: a cell is quoted as by a spreadsheet") as caught:
        open_triples(path)
    assert caught.value.hint == "Save it as .csv, which supports quotes, or as .tsv without quotes."


@pytest.mark.parametrize("cell", ['"He said ""hi"" there"', '"two\nlines"'])
def test_so_is_one_of_texts(tmp_path: Path, cell: str) -> None:
    (tmp_path / "t.tsv").write_text(f"text\nplain\n{cell}\n")
    with pytest.raises(DataError, match="a cell is quoted"):
        list(read_texts(tmp_path / "t.tsv", None))


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", b"query;positive\na;b\n", "its columns are separated by semicolons"),
        ("a.csv", b'"query";"positive"\n"a";"b"\n', "its columns are separated by semicolons"),
        ("a.csv", b"query\tpositive\na\tb\n", "its columns are separated by tabs"),
        ("a.tsv", b"query,positive\na,b\n", "its columns are separated by commas"),
        ("a.csv", b"sep=,\nquery,positive\na,b\n", "the first line is Excel's 'sep=,'"),
        ("a.tsv", "query\tpositive\na\tb\n".encode("utf-16-le"), "contains zero bytes, so it is UTF-16"),
        ("a.csv", "query,positive\ncaf\u00e9,b\n".encode("latin-1"), "not UTF-8 text"),
    ],
)
def test_the_true_reason_is_told(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=complaint) as caught:
        open_triples(tmp_path / name)
    assert "query (or anchor" not in caught.value.hint
    if complaint == "not UTF-8 text":
        assert "Save the file as UTF-8" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"one\rtwo\rthree\r", "its lines end in CR only"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "is a Git LFS pointer"),
        ("one\ntwo\n".encode("utf-16"), "is UTF-16 text"),
    ],
)
def test_lines_of_text_are_looked_at_too(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(DataError, match=complaint):
        list(read_texts(tmp_path / "t.txt", None))


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a.tsv.gz"])
def test_line_ends_of_cr_alone_are_named(tmp_path: Path, name: str) -> None:
    lines = {"tsv": ["query\tpositive", "a\tb"], "csv": ["query,positive", "a,b"],
             "jsonl": ['{"query": "a", "positive": "b"}'] * 2}[name.split(".")[1]]  # fmt: skip
    content = ("\r".join(lines) + "\r").encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(DataError, match="its lines end in CR only") as caught:
        open_triples(tmp_path / name)
    assert "tr '\\r' '\\n'" in caught.value.hint


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le-with-mark"])
@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a"])
def test_utf16_is_named(tmp_path: Path, name: str, encoding: str) -> None:
    text = "query\tpositive\na\tb\n"
    content = text.encode("utf-16") if encoding == "utf-16" else b"\xff\xfe" + text.encode("utf-16-le")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="is UTF-16 text") as caught:
        open_triples(tmp_path / name)
    assert caught.value.hint.startswith("Convert it: iconv")


def test_semicolons_and_pointers_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("query;positive;negative\na;b;c\n")
    with pytest.raises(DataError, match="separated by semicolons"):
        open_triples(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("id;text\n1;x; y\n")
    with pytest.raises(DataError, match="separated by semicolons"):
        list(read_texts(tmp_path / "b.csv", None))
    (tmp_path / "c.jsonl").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\n")
    with pytest.raises(DataError, match="is a Git LFS pointer"):
        open_triples(tmp_path / "c.jsonl")


@pytest.mark.parametrize("kind", [pa.null(), pa.list_(pa.null())])
def test_a_parquet_column_of_nulls_is_no_negatives_as_in_json(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"query": ["a", "b"], "positive": ["p", "q"], "negative": pa.array([None, None], kind)})
    parquet.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"query": q, "positive": p, "negative": None}) + "\n" for q, p in (("a", "p"), ("b", "q")))
    )
    assert triples(tmp_path / "a.parquet") == triples(tmp_path / "a.jsonl") == [("a", "p", []), ("b", "q", [])]
    parquet.write_table(table.rename_columns(["query", "negative", "positive"]), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="column 'positive' contains"):
        open_triples(tmp_path / "b.parquet")


def test_wrong_types_say_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"query": 7, "positive": "x"}\n{"query": "a", "positive": {"text": "x"}}\n')
    with pytest.raises(DataError) as caught:
        open_triples(tmp_path / "a.jsonl")
    assert "a.jsonl:1: 'query' must be text (got int)" in caught.value.message
    assert "a.jsonl:2: 'positive' must be text (got dict)" in caught.value.message


def test_encode_says_what_encode_reads(ragcun: RunCommand, tmp_path: Path) -> None:
    """And not what training does."""
    for name, said in (("c.zip", "Unpack it and name the file with the texts"), ("c.bin", '{"_id": "...", "text"')):
        (tmp_path / name).write_bytes(b"something\x00else")
        done = ragcun("encode", tmp_path / name, "-m", "no/model", "-o", tmp_path / "x.npy")
        assert done.exit_code in (1, 2)
        assert said in " ".join(done.stderr.split())
        assert "positive" not in done.stderr
