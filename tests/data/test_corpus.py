"""The index of a corpus: what it finds, what it reports, and that it is made once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ragcun_cli.data.corpus import Corpus, open_corpus
from ragcun_cli.data.digests import keys_of
from ragcun_cli.errors import DataError

RECORDS = [
    {"_id": "b", "title": "", "text": "second"},
    {"_id": "é", "title": "Ü", "text": " last "},
    {"_id": "a", "title": "T", "text": "first"},
    {"_id": "B", "text": ""},
]


def write(path: Path, records: list[dict[str, str]], prefix: bytes = b"", blank: bool = False) -> Path:
    lines = [json.dumps(record, ensure_ascii=False).encode() for record in records]
    path.write_bytes(prefix + (b"\n\n" if blank else b"\n").join(lines))
    return path


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("blank", [False, True])
def test_rows_are_in_the_order_of_ids(tmp_path: Path, prefix: bytes, blank: bool) -> None:
    corpus = open_corpus(write(tmp_path / "corpus.jsonl", RECORDS, prefix, blank), tmp_path)
    assert corpus.ids(range(4)) == ["B", "a", "b", "é"]
    assert corpus.texts() == ["", "T first", "second", "Ü  last"]
    assert corpus.texts(np.array([3, 0, 3])) == ["Ü  last", "", "Ü  last"]
    assert [corpus.row_of(identity) for identity in ("B", "é", "aa", "~", "A")] == [0, 3, None, None, None]
    assert corpus.ids(corpus.rows_in_file_order()) == ["b", "é", "a", "B"]
    assert (corpus.keys == keys_of(corpus.texts())).all()
    assert corpus.facts.empty_passages == 1


def test_of_equal_ids_the_later_line_counts_and_it_is_reported(tmp_path: Path) -> None:
    records = [{"_id": "a", "text": "old"}, {"_id": "b", "text": "x"}, {"_id": "a", "text": "new"}]
    corpus = open_corpus(write(tmp_path / "corpus.jsonl", records), tmp_path)
    assert corpus.texts() == ["new", "x"]
    assert corpus.facts.duplicate_ids == 1
    assert corpus.facts.first_duplicate == "'a' on line 1"


def test_the_index_is_made_once_for_the_same_content(tmp_path: Path) -> None:
    first = open_corpus(write(tmp_path / "one.jsonl", RECORDS), tmp_path)
    made = (first.index / "offsets.npy").stat().st_mtime_ns
    second = open_corpus(write(tmp_path / "other.jsonl", RECORDS), tmp_path)
    assert second.index == first.index
    assert (first.index / "offsets.npy").stat().st_mtime_ns == made
    assert open_corpus(write(tmp_path / "one.jsonl", RECORDS[:2]), tmp_path).index != first.index


def test_a_damaged_index_is_made_again(tmp_path: Path) -> None:
    path = write(tmp_path / "corpus.jsonl", RECORDS)
    index = open_corpus(path, tmp_path).index
    content = bytearray((index / "offsets.npy").read_bytes())
    content[-3] ^= 1
    (index / "offsets.npy").write_bytes(content)
    assert open_corpus(path, tmp_path).texts()[1] == "T first"


def test_the_index_takes_eight_bytes_a_passage_besides_ids_and_keys(tmp_path: Path) -> None:
    records = [{"_id": f"{number:04}", "text": "some text"} for number in range(1000)]
    corpus = open_corpus(write(tmp_path / "corpus.jsonl", records), tmp_path)
    header = 128
    assert (corpus.index / "offsets.npy").stat().st_size == 8 * 1000 + header
    assert (corpus.index / "ids.npy").stat().st_size == 4 * 1000 + header


def test_another_process_opens_it_by_its_paths(tmp_path: Path) -> None:
    corpus = open_corpus(write(tmp_path / "corpus.jsonl", RECORDS), tmp_path)
    assert Corpus(corpus.path, corpus.index, corpus.label).texts() == corpus.texts()


def test_ids_too_long_for_an_array_are_sorted_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ragcun_cli.data import corpus as module

    records = [{"_id": identity, "text": identity} for identity in ("b", "aa", "é", "a", "b" * 300, "z\u3000z")]
    expected = sorted(record["_id"] for record in records)
    for limit in (module.SORTED_AS_ARRAY, 1):
        monkeypatch.setattr(module, "SORTED_AS_ARRAY", limit)
        cache = tmp_path / str(limit)
        assert open_corpus(write(tmp_path / "corpus.jsonl", records), cache).ids(range(6)) == expected


def test_a_corpus_that_changes_while_it_is_read_is_named(tmp_path: Path) -> None:
    corpus = open_corpus(write(tmp_path / "corpus.jsonl", RECORDS), tmp_path)
    corpus.path.write_text("short")
    with pytest.raises(DataError, match="changed while it was being read"):
        corpus.texts()
