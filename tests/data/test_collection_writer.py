"""A collection that is written is read as it was, whoever writes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ragcun_cli.data.collection import read_collection
from ragcun_cli.data.collection_writer import Written, passage_record, write_beir_layout


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    passages = [passage_record("p1", "café", "A title"), passage_record("p2", "two", metadata={"module": "m"})]
    judgements = [("q1", "p1", 2), ("q1", "p2", 0), ("q2", "p2", 1)]
    written = write_beir_layout(tmp_path / "own", "dev", passages, [("q1", "one?"), ("q2", "two?")], judgements)
    assert written == Written(2, 2, 3)
    own = read_collection(tmp_path / "own", "dev")
    assert own.qrels == {"q1": {"p1": 2, "p2": 0}, "q2": {"p2": 1}}
    assert own.corpus.texts() == ["A title café", "two"]
    lines = (tmp_path / "own" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines[0] == '{"_id": "p1", "title": "A title", "text": "café"}'
    assert json.loads(lines[1])["metadata"] == {"module": "m"}


def test_what_is_read_lazily_is_read_in_the_order_of_files(tmp_path: Path) -> None:
    """Some readers find their queries among the passages."""
    found: list[tuple[str, str]] = []

    def passages() -> Iterator[dict[str, Any]]:
        found.append(("q1", "seen"))
        yield passage_record("p1", "x")

    write_beir_layout(tmp_path, "test", passages(), (each for each in found), (("q1", "p1", 1) for _ in found))
    assert read_collection(tmp_path).queries == ["seen"]
