"""Training data: what is written in any format is read as it was, and what is broken is refused in words."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcun_cli.data.triples.prepared import open_triples
from tests.properties.inputs import TEXTS, answers_or_refuses, damaged, new_folder
from tests.triple_tables import rows_of

Rows = list[tuple[str, str, list[str]]]
ROWS = st.lists(st.tuples(TEXTS, TEXTS, st.lists(TEXTS, max_size=3)), min_size=1, max_size=8)
ROWS_OF_ONE = st.lists(st.tuples(TEXTS, TEXTS, st.lists(TEXTS, min_size=1, max_size=1)), min_size=1, max_size=8)


def json_lines(rows: Rows) -> bytes:
    lines = (json.dumps({"query": query, "positive": positive, "negatives": none}) for query, positive, none in rows)
    return "\n".join(lines).encode()


def json_list(rows: Rows) -> bytes:
    return json.dumps(
        [{"query": query, "positive": positive, "negatives": negatives} for query, positive, negatives in rows],
        ensure_ascii=False,
    ).encode()


def delimited(rows: Rows, delimiter: str) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerow(["query", "positive", "negative"])
    writer.writerows([query, positive, negatives[0]] for query, positive, negatives in rows)
    return stream.getvalue().encode()


def parquet(rows: Rows) -> bytes:
    names = ("query", "positive", "negatives")
    columns = [pa.array([row[place] for row in rows]) for place in range(2)]
    columns.append(pa.array([row[2] for row in rows], pa.list_(pa.string())))
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(dict(zip(names, columns, strict=True))), stream)
    return stream.getvalue()


WRITERS: dict[str, Callable[[Rows], bytes]] = {
    "rows.jsonl": json_lines,
    "rows.json": json_list,
    "rows.parquet": parquet,
    "rows.csv": lambda rows: delimited(rows, ","),
    "rows.tsv": lambda rows: delimited(rows, "\t"),
    "rows.jsonl.gz": lambda rows: gzip.compress(json_lines(rows)),
}


def read(folder: Path, name: str, content: bytes) -> Rows:
    (folder / name).write_bytes(content)
    return rows_of(open_triples(folder / name)[0])


@pytest.mark.parametrize("name", WRITERS)
@given(data=st.data())
def test_what_is_written_is_read_as_it_was(name: str, data: st.DataObject) -> None:
    rows = data.draw(ROWS_OF_ONE if "sv" in name else ROWS)
    with new_folder() as folder:
        assert read(folder, name, WRITERS[name](rows)) == [
            (query.strip(), positive.strip(), [each.strip() for each in negatives])
            for query, positive, negatives in rows
        ]


@pytest.mark.parametrize("name", WRITERS)
@given(data=st.data())
def test_the_order_of_lines_changes_nothing_but_the_order(name: str, data: st.DataObject) -> None:
    rows = data.draw(ROWS_OF_ONE if "sv" in name else ROWS)
    shuffled = data.draw(st.permutations(rows))
    with new_folder() as folder:
        there, again = (
            read(folder, f"{place}{name}", WRITERS[name](each)) for place, each in enumerate([rows, shuffled])
        )
    assert sorted(there) == sorted(again)


@pytest.mark.parametrize("name", WRITERS)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_in_words(name: str, data: st.DataObject) -> None:
    valid = WRITERS[name]([("what is this", "a passage", ["another"]), ("and é?", "中文", ['a, "b"\n'])])
    content = data.draw(damaged(valid))
    with new_folder() as folder:
        answers_or_refuses(lambda: read(folder, name, content))


@pytest.mark.parametrize("name", ["any", "any.txt", *WRITERS])
@given(content=st.binary(max_size=80))
def test_any_bytes_are_read_or_refused_in_words(name: str, content: bytes) -> None:
    with new_folder() as folder:
        answers_or_refuses(lambda: read(folder, name, content))
