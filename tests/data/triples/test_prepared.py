"""Training triples: every shape that is read, and the prepared form that they are kept in."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from ragcun_cli.data.triples import prepared, reading_delimited, reading_json, reading_parquet
from ragcun_cli.data.triples.prepared import open_triples
from ragcun_cli.errors import DataError, UsageError
from tests.tiny_models import write_collection
from tests.triple_tables import rows_of

ROWS = [
    ("what is  é?", "a letter", ["n1"]),
    ("q2", "a passage, with a comma", []),
    ("q3", 'one "quoted"', ["n1", "n2"]),
]


def write(folder: Path, text: str | bytes, name: str = "triples.jsonl") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(path: Path, max_bad_rows: int = 0) -> list[tuple[str, str, list[str]]]:
    return rows_of(open_triples(path, max_bad_rows)[0])


def lists(query: str, positive: str, negatives: list[str]) -> dict[str, Any]:
    return {"query": f" {query} ", "pos": [positive], "neg": negatives, "source": "not asked"}


def numbered(query: str, positive: str, negatives: list[str]) -> dict[str, Any]:
    both = [*negatives, None, None][:2]
    return {"anchor": query, "positive": positive, "negative_2": both[1], "negative_1": both[0]}


def mixed(query: str, positive: str, negatives: list[str]) -> dict[str, Any]:
    record: dict[str, Any] = {"query": query, "positive": positive}
    if len(negatives) == 1:
        record["negative"] = negatives[0]
    elif negatives:
        record["negatives"] = negatives
    return record


def as_lines(records: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(each) + "\n" for each in records).encode()


def as_list(records: list[dict[str, Any]]) -> bytes:
    return json.dumps(records, indent=2, ensure_ascii=False).encode()


def as_tsv(_: object) -> bytes:
    return "".join("\t".join([query, positive, *negatives]) + "\r\n" for query, positive, negatives in ROWS).encode()


def as_csv(_: object) -> bytes:
    cells = [["Question", "Positive", "negative_1", "negative_2"]]
    cells += [[query, positive, *negatives] for query, positive, negatives in ROWS]
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in cells]
    return "\n".join(quoted).encode()


@pytest.mark.parametrize("shape", [lists, numbered, mixed])
@pytest.mark.parametrize("encode", [as_lines, as_list])
@pytest.mark.parametrize("compress", ["", ".gz", ".zst"])
def test_json_in_every_shape(tmp_path: Path, shape: Any, encode: Any, compress: str) -> None:
    content = encode([shape(*row) for row in ROWS])
    if compress == ".gz":
        content = gzip.compress(content)
    if compress == ".zst":
        content = pa.Codec("zstd").compress(content, asbytes=True)
    assert read(write(tmp_path, content, f"triples.json{compress}")) == ROWS


@pytest.mark.parametrize(("encode", "name"), [(as_csv, "triples.csv"), (as_csv, "triples.CSV")])
def test_csv(tmp_path: Path, encode: Callable[[object], bytes], name: str) -> None:
    assert read(write(tmp_path, encode(ROWS), name)) == ROWS


def test_tsv_takes_quotes_as_they_are_and_counts_columns_by_its_header(tmp_path: Path) -> None:
    content = b"query\tpositive\tnegative_1\tnegative_2\n" + as_tsv(ROWS)
    assert read(write(tmp_path, content, "triples.tsv")) == ROWS
    assert read(write(tmp_path, content, "triples.txt")) == ROWS


@pytest.mark.parametrize("lists_of_texts", [True, False])
def test_parquet(tmp_path: Path, lists_of_texts: bool) -> None:
    if lists_of_texts:
        columns = {
            "query": [row[0] for row in ROWS],
            "pos": [[row[1]] for row in ROWS],
            "neg": [row[2] for row in ROWS],
        }
    else:
        both = [[*row[2], None, None] for row in ROWS]
        columns = {"query": [row[0] for row in ROWS], "positive": [row[1] for row in ROWS]}
        columns |= {"negative_1": [row[0] for row in both], "negative_2": [row[1] for row in both]}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "triples.parquet")
    assert read(tmp_path / "triples.parquet") == ROWS


def test_several_positives_make_several_rows(tmp_path: Path) -> None:
    records = [{"query": "q", "pos": ["a", "b"], "neg": ["n", "m"]}, {"query": "r", "pos": ["c"], "neg": []}]
    expected = [("q", "a", ["n", "m"]), ("q", "b", ["n", "m"]), ("r", "c", [])]
    assert read(write(tmp_path, as_lines(records))) == expected
    assert read(write(tmp_path, as_list(records), "triples.json")) == expected
    pyarrow.parquet.write_table(pa.Table.from_pylist(records), tmp_path / "triples.parquet")
    assert read(tmp_path / "triples.parquet") == expected


def test_a_collection_gives_the_pairs_of_its_train_split(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "tiny", 12, split="train")
    rows = read(folder)
    assert len(rows) == 12
    assert all(query in positive and negatives == [] for query, positive, negatives in rows)
    qrels = folder / "qrels" / "train.tsv"
    qrels.write_text(qrels.read_text() + "q3\tnowhere\t1\nq4\td9\t0\n")
    with pytest.raises(DataError, match=r"train\.tsv:14: passage 'nowhere' is not in the corpus"):
        read(folder)
    assert len(read(folder, 1)) == 12
    with pytest.raises(UsageError, match="no split 'train'"):
        read(write_collection(tmp_path / "other", 3))


def test_large_files_come_in_blocks_and_line_numbers_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ragcun_cli.data.triples import blocks

    monkeypatch.setattr(blocks, "BLOCK_BYTES", 700)
    monkeypatch.setattr(reading_json, "BLOCK_BYTES", 700)
    for module in (reading_json, reading_delimited, reading_parquet):
        monkeypatch.setattr(module, "ROWS_AT_A_TIME", 13)
    rows = [(f"query {n} é", f"passage {n % 50}" + " x" * (n % 97), [f"negative {n % 7}"]) for n in range(400)]
    records = [mixed(*row) for row in rows]
    tsv = "".join("\t".join([q, p, n[0]]) + "\n" for q, p, n in rows).encode()
    pyarrow.parquet.write_table(pa.Table.from_pylist(records), tmp_path / "t.parquet")
    files = [
        write(tmp_path, as_lines(records), "t.jsonl"),
        write(tmp_path, as_list(records), "t.json"),
        write(tmp_path, tsv, "t.tsv"),
        write(tmp_path, b"query,positive,negative\n" + tsv.replace(b"\t", b","), "t.csv"),
        tmp_path / "t.parquet",
    ]
    for path in files:
        assert read(path) == rows, path
    lines = as_lines(records).splitlines()
    lines[321] = b'{"query": 7, "positive": "p"}'
    lines[390] = b"[1, 2]"
    with pytest.raises(DataError) as caught:
        read(write(tmp_path, b"\n".join(lines), "broken.jsonl"))
    assert "broken.jsonl:322: 'query' must be text (got int)" in caught.value.message
    assert "broken.jsonl:391: expected a JSON object" in caught.value.message


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    for name, content in {
        "a.tsv": "query\tpositive\nq\tp\n",
        "a.csv": "query,positive\nq,p\n",
        "a.jsonl": '{"query": "q", "positive": "p"}\n',
        "a.json": '[{"query": "q", "positive": "p"}]',
    }.items():
        assert read(write(tmp_path, "\ufeff" + content, name)) == [("q", "p", [])]


def test_a_prepared_file_is_not_read_again_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, '{"query": "q", "positive": "p"}\n')
    first, sha256 = open_triples(path)
    with monkeypatch.context() as patch:
        patch.setattr(prepared, "_prepare", lambda *_: pytest.fail("it was read again"))
        again, _ = open_triples(path)
        assert (rows_of(again), again.digest) == (rows_of(first), first.digest)
    path.write_text('{"query": "q", "positive": "x"}\n')
    changed, other = open_triples(path)
    assert rows_of(changed) == [("q", "x", [])]
    assert other != sha256


@pytest.mark.parametrize("name", ["texts.arrow", "queries.npy", "manifest.json"])
def test_a_prepared_file_that_was_written_to_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("RAGCUN_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path, as_lines([mixed(*row) for row in ROWS]))
    assert read(path) == ROWS
    (damaged,) = (tmp_path / "cache" / "triples").glob(f"*/{name}")
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content if name != "manifest.json" else b"{")
    assert read(path) == ROWS


def test_equal_texts_have_one_number_whatever_their_place(tmp_path: Path) -> None:
    path = write(tmp_path, as_lines([mixed("q", "p", ["n"]), mixed("p", "q", []), mixed("r", "p", ["p"])]))
    table, _ = open_triples(path)
    assert sorted(table.texts) == ["n", "p", "q", "r"]
    assert table.texts[1:3] == [table.texts[1], table.texts[2]]
    assert table.positives[0] == table.queries[1] == table.positives[2] == table.negatives[1]


def test_characters_that_look_like_line_ends_end_no_row(tmp_path: Path) -> None:
    rows = [("what is a", "good\x85more of it", ["bad\x0b\x1c"]), ("q2", "p2 \u2028tail", ["n2"])]
    csv = "".join(",".join([q, p, *n]) + "\n" for q, p, n in rows).encode()
    for name, content in (("a.csv", csv), ("a.tsv", csv.replace(b",", b"\t"))):
        found = read(write(tmp_path, content, name))
        assert [(q, p) for q, p, _ in found] == [(q, p) for q, p, _ in rows]
    quoted = 'q,"two\nlines",n\nr,"x\u2028y",\nonly\n'
    with pytest.raises(DataError, match=r"b\.csv:4: "):
        read(write(tmp_path, quoted, "b.csv"))


def test_columns_that_are_not_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read(write(tmp_path, '{"query": "q", "positive": "p", "hard_negatives": ["n"], "id": 3}\n'))
    assert "query, positive (not read: hard_negatives, id); 1 triples" in capsys.readouterr().err


def test_negatives_that_the_first_row_lacks_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read(write(tmp_path, as_lines([mixed("q", "p", []), mixed("r", "s", ["n"])])))
    assert "query, positive, negatives in some rows; 2 triples" in capsys.readouterr().err


def test_a_change_in_place_with_the_old_time_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, '{"query": "q", "positive": "bbbb"}\n')
    os.utime(path, ns=(10**18, 10**18))
    assert read(path) == [("q", "bbbb", [])]
    with path.open("r+b") as stream:
        stream.seek(path.read_bytes().index(b"bbbb"))
        stream.write(b"cccc")
    os.utime(path, ns=(10**18, 10**18))
    assert read(path) == [("q", "cccc", [])]


def test_a_file_name_that_is_no_text(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/n\xff.jsonl"))
    path.write_text('{"query": "q", "positive": "p"}\n{}\n')
    os.utime(path, ns=(10**18, 10**18))
    assert read(path, 1) == read(path, 1) == [("q", "p", [])]


def test_parquets_other_kinds_of_text(tmp_path: Path) -> None:
    columns = {
        "query": pa.array(["q"]).cast(pa.string_view()),
        "positive": pa.array(["p"]).dictionary_encode(),
        "neg": pa.array([["n", "m"]], pa.list_(pa.string(), 2)),
    }
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [("q", "p", ["n", "m"])]
    pyarrow.parquet.write_table(pa.table({"query": [1], "positive": ["p"]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="column 'query' contains int64, not texts"):
        read(tmp_path / "b.parquet")
