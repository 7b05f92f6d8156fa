"""Training data that cannot be used as they are: named by file and line, counted, never skipped silently."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from ragcun_cli.data.triples.prepared import open_triples
from ragcun_cli.errors import DataError, UsageError
from tests.data.triples.test_prepared import as_lines, mixed, read, write
from tests.triple_tables import rows_of


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"query": "q"', "not valid JSON"),
        ('{"query": "q"}', "'positive' is missing"),
        ('{"query": "q", "positive": "  "}', "'positive' is empty"),
        ('{"query": "", "positive": "p"}', "'query' is empty"),
        ('{"query": "q", "positive": "p", "negative": ""}', "'negative' is empty"),
        ('{"query": "q", "positive": "p", "negatives": ["n", " "]}', "'negatives' is empty"),
        ('{"query": "q", "positives": []}', "'positives' is empty"),
        ('{"query": 3, "positive": "p"}', "'query' must be text (got int)"),
        ('{"query": "half \\ud83d", "positive": "p"}', "'query' contains half a surrogate pair"),
        ('["q", "p"]', "expected a JSON object (got list)"),
        ('{"query": "q", "positive": "p"} {"query": "q", "positive": "p"}', "not valid JSON"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    path = write(tmp_path, '{"query": "q", "positive": "p"}\n' + line + "\n")
    with pytest.raises(DataError) as caught:
        open_triples(path)
    assert f"{path}:2: {complaint}" in caught.value.message
    assert "--max-bad-rows 1" in caught.value.hint
    table, _ = open_triples(path, max_bad_rows=1)
    assert (rows_of(table), table.left_out) == ([("q", "p", [])], 1)


def test_broken_rows_that_were_left_out_are_an_error_where_fewer_are_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, '{"query": "q", "positive": "p"}\n{}\n')
    assert len(read(path, 1)) == 1
    assert f"1 broken rows left out, the first: {path}:2" in capsys.readouterr().err
    with pytest.raises(DataError, match="'query' is missing"):
        read(path)


def test_all_broken_rows_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path, "q\tp\n" + "only one column\n" * 25, "triples.tsv")
    with pytest.raises(DataError) as caught:
        open_triples(path)
    assert f"{path}:10: 2 or 3 columns expected: query, positive, negative (got 1)" in caught.value.message
    assert "... and 15 more" in caught.value.message
    assert "25 broken rows" in caught.value.hint


def test_a_tab_inside_a_passage_is_a_broken_row(tmp_path: Path) -> None:
    path = write(tmp_path, "q\tp\tn\nq\tp\tn\tmore\n", "triples.tsv")
    with pytest.raises(DataError, match=r"triples\.tsv:2: 2 or 3 columns expected"):
        open_triples(path)


@pytest.mark.parametrize("name", ["triples.jsonl", "triples.tsv", "triples.csv", "triples.json"])
def test_bytes_that_are_not_text_are_named(tmp_path: Path, name: str) -> None:
    good = {".json": b'[{"query": "q", "positive": "p"},\n', ".csv": b"q,p\n", ".tsv": b"q\tp\n"}
    content = good.get(Path(name).suffix, b'{"query": "q", "positive": "p"}\n')
    bad = b"q\t\xff\n" if name.endswith("tsv") else b"q,\xff\n" if name.endswith("csv") else b'{"query": "\xff"}]\n'
    with pytest.raises(DataError, match=":2: not UTF-8 text"):
        open_triples(write(tmp_path, content + bad, name))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("qid\tpid\tnid\nq\tp\tn\n", "looks like a header with other names: qid, pid, nid"),
        ("1185869\t0\t1902\n", "these are ids, not texts"),
        ("text,label\na,b\n", "looks like a header with other names"),
    ],
)
def test_columns_that_are_no_triples(tmp_path: Path, content: str, complaint: str) -> None:
    name = "triples.tsv" if "\t" in content else "triples.csv"
    with pytest.raises(DataError, match=rf"{name}:1: .*{complaint}"):
        open_triples(write(tmp_path, content, name))
    pyarrow.parquet.write_table(pa.table({"a": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no usable columns: a"):
        open_triples(tmp_path / "a.parquet")


@pytest.mark.parametrize("line", ["9" * 5000, "[" * 100_000])
def test_json_that_no_reader_takes(tmp_path: Path, line: str) -> None:
    with pytest.raises(DataError, match=r"triples\.jsonl:1: "):
        open_triples(write(tmp_path, line + "\n"))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('[{"query": "q", "positive": "p"}', "ends inside the list"),
        ('[{"query": "q", "positive": "p"},\n\n{"query": ]', ":3: not valid JSON"),
        ('[{"query": "q", "positive": "p"} {"query"', "expected ',', not '{'"),
        ('[\n"text"]', ":2: expected a JSON object"),
        ('{"query": "q", "positive": {"text": "p"}}', "'positive' must be text"),
    ],
)
def test_a_broken_list(tmp_path: Path, content: str, complaint: str) -> None:
    with pytest.raises(DataError) as caught:
        open_triples(write(tmp_path, content, "triples.json"))
    assert complaint in caught.value.message


@pytest.mark.parametrize("name", ["triples.jsonl.gz", "triples.jsonl.zst", "triples.parquet"])
def test_a_file_that_is_cut_off(tmp_path: Path, name: str) -> None:
    content = as_lines([mixed(f"q{n}", f"p{n * 7919 % 10_007}", []) for n in range(5000)])
    if name.endswith("gz"):
        content = gzip.compress(content)
    elif name.endswith("zst"):
        content = pa.Codec("zstd").compress(content, asbytes=True)
    else:
        pyarrow.parquet.write_table(pa.table({"query": ["q"] * 99, "positive": ["p"] * 99}), tmp_path / "whole")
        content = (tmp_path / "whole").read_bytes()
    with pytest.raises(DataError, match=r"incomplete|not a complete Parquet"):
        open_triples(write(tmp_path, content[: len(content) // 2], name))
    with pytest.raises(DataError, match=r"not a (gzip|zstandard) file|not a complete"):
        open_triples(write(tmp_path, b"something else", name))


def test_a_quote_that_is_never_closed_is_named_where_it_opens(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"triples\.csv:2: cannot be read as CSV"):
        open_triples(write(tmp_path, 'q,p\nr,"open\n' + "x,y\n" * 3, "triples.csv"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.tsv", "a.csv"])
def test_an_empty_file_has_no_triples(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="no triples"):
        open_triples(write(tmp_path, "\n\n", name))


def test_a_missing_file_and_an_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        open_triples(tmp_path / "nowhere.jsonl")
    with pytest.raises(DataError, match="neither JSON, JSON Lines, TSV, CSV nor Parquet"):
        open_triples(write(tmp_path, "just words\n", "triples.doc"))


@pytest.mark.parametrize(("name", "row"), [("a.csv", ",,"), ("a.tsv", "\t\t")])
def test_a_row_of_empty_cells_is_broken_not_blank(tmp_path: Path, name: str, row: str) -> None:
    good = "q,p,n".replace(",", row[0])
    with pytest.raises(DataError, match=rf"{name}:2: 'query' is empty"):
        read(write(tmp_path, f"{good}\n{row}\n\n{good}\n", name))


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    for name, tab in (("a.tsv", "\t"), ("a.csv", ",")):
        content = tab.join(["query", "positive", "negative", "negative"]) + "\n"
        with pytest.raises(DataError, match=rf"{name}:1: two columns are called 'negative'"):
            read(write(tmp_path, content, name))
    arrays = [pa.array(["x"])] * 3
    pyarrow.parquet.write_table(pa.Table.from_arrays(arrays, ["query", "positive", "positive"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="two columns are called 'positive'"):
        read(tmp_path / "a.parquet")


def test_text_after_a_list_and_elements_that_are_no_objects(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.json:1: there is more after the end of the list"):
        read(write(tmp_path, '[{"query": "q", "positive": "p"}][]', "a.json"))
    mixed_list = write(
        tmp_path, '[{"query": "q", "positive": "p"},\n "text",\n{"query": "r", "positive": "s"}]', "b.json"
    )
    assert [query for query, _, _ in read(mixed_list, 1)] == ["q", "r"]


def test_broken_rows_come_in_the_files_order(tmp_path: Path) -> None:
    lines = [
        '{"query": "q", "positive": "p"}',
        '{"query": "", "positive": "p"}',
        "{",
        '{"query": "q", "positive": " "}',
        "[",
    ]
    with pytest.raises(DataError) as caught:
        read(write(tmp_path, "\n".join(lines)))
    assert [line.split(":")[1] for line in caught.value.message.splitlines()] == ["2", "3", "4", "5"]


def test_rows_under_other_names_say_what_they_have(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'query' is missing; its keys are q, doc") as caught:
        read(write(tmp_path, '{"q": "q", "doc": "p"}\n'), 1)
    assert "All 1 rows are broken. Columns must be called query" in caught.value.hint


def test_broken_rows_are_named_by_the_file_that_is_read(tmp_path: Path) -> None:
    content = '{"query": "q", "positive": "p"}\n{}\n'
    assert len(read(write(tmp_path, content, "one.jsonl"), 1)) == 1
    with pytest.raises(DataError, match=r"two\.jsonl:2: "):
        read(write(tmp_path, content, "two.jsonl"))
    with pytest.raises(DataError, match=r"all\.jsonl:1: 'query' is missing"):
        read(write(tmp_path, "{}\n{}\n", "all.jsonl"), 9)


@pytest.mark.parametrize(
    "line", ["null", " null", '{"query": "q", "positive": "p", "negative": "n"} null', "NaN", "[null]"]
)
def test_a_line_that_is_no_object_is_named(tmp_path: Path, line: str) -> None:
    """The reader of Arrow 26.0 ends the process at the first of these."""
    good = '{"query": "q", "positive": "p", "negative": null}'
    (tmp_path / "rows.jsonl").write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(DataError, match=r"rows\.jsonl:2: "):
        open_triples(tmp_path / "rows.jsonl")
