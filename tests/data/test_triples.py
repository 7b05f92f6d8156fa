"""Training triples: formats, and broken rows named by file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragcun_cli.data.triples import Triple, read_triples
from ragcun_cli.errors import DataError, UsageError


def write(folder: Path, text: str | bytes, name: str = "triples.jsonl") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_jsonl_and_tsv_give_the_same_triples(tmp_path: Path) -> None:
    jsonl = write(
        tmp_path,
        '{"query": " q1 ", "positive": "p1", "negative": "n1"}\n\n'
        '{"query": "q2", "positive": "p2", "negative": null, "source": "kept out"}\n',
    )
    tsv = write(tmp_path, "q1\tp1\tn1\r\nq2\tp2\n", "triples.tsv")
    assert read_triples(jsonl) == read_triples(tsv) == [Triple("q1", "p1", "n1"), Triple("q2", "p2", None)]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"query": "q"', "not valid JSON"),
        ('{"query": "q"}', "'positive' is missing"),
        ('{"query": "q", "positive": "  "}', "'positive' is empty"),
        ('{"query": "", "positive": "p"}', "'query' is empty"),
        ('{"query": "q", "positive": "p", "negative": ""}', "'negative' is empty"),
        ('{"query": 3, "positive": "p"}', "'query' must be a text (got int)"),
        ('{"query": "half \\ud83d", "positive": "p"}', "'query' has half of a surrogate pair"),
        ('["q", "p"]', "a JSON object is expected (got list)"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    path = write(tmp_path, '{"query": "q", "positive": "p"}\n' + line + "\n")
    with pytest.raises(DataError) as caught:
        read_triples(path)
    assert f"{path}:2: {complaint}" in caught.value.message
    assert "1 broken rows" in caught.value.hint


def test_all_broken_rows_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path, "only one column\n" * 25, "triples.tsv")
    with pytest.raises(DataError) as caught:
        read_triples(path)
    assert f"{path}:10: 2 or 3 columns are expected" in caught.value.message
    assert "... and 15 more" in caught.value.message
    assert "25 broken rows" in caught.value.hint


def test_bytes_that_are_not_text_are_named(tmp_path: Path) -> None:
    for name in ("triples.jsonl", "triples.tsv"):
        with pytest.raises(DataError, match=":1: not UTF-8 text"):
            read_triples(write(tmp_path, b'{"query": "\xff"}\tx\n', name))


def test_a_header_and_a_byte_order_mark_are_no_text(tmp_path: Path) -> None:
    tsv = write(tmp_path, "\ufeffquery\tpositive\nq\tp\n", "triples.tsv")
    assert read_triples(tsv) == [Triple("q", "p", None)]
    jsonl = write(tmp_path, '\ufeff{"query": "q", "positive": "p"}\n')
    assert read_triples(jsonl) == [Triple("q", "p", None)]


@pytest.mark.parametrize("line", ["9" * 5000, "[" * 100_000])
def test_json_that_no_reader_takes(tmp_path: Path, line: str) -> None:
    with pytest.raises(DataError, match=r"triples\.jsonl:1: "):
        read_triples(write(tmp_path, line + "\n"))


def test_an_empty_file_has_no_triples(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no triples"):
        read_triples(write(tmp_path, "\n\n"))


def test_a_missing_file_and_an_unknown_ending(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_triples(tmp_path / "nowhere.jsonl")
    with pytest.raises(UsageError, match=r"\.jsonl or \.tsv"):
        read_triples(write(tmp_path, "x", "triples.parquet"))
