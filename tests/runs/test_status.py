"""How a run stands, as it says itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ragcun_cli.runs.folder import RunFolder, find_environment, read_records, whole_records
from ragcun_cli.runs.status import Progress, Status

STATUS = Status("interrupted", Progress(step=120, best_score=0.5, best_step=100, tokens=9), 300, "SIGTERM", 75)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    for each in (STATUS, replace(STATUS, log_lost="stderr: Broken pipe", exit_code=None)):
        each.write(path)
        assert Status.find(path) == each
    STATUS.write(path)
    assert list(json.loads(path.read_text())) == [
        "state", "step", "best_score", "best_step", "scores_without_gain", "chunk_tokens", "overflows", "tokens",
        "behind", "total_steps", "exit_reason", "exit_code",
    ]  # fmt: skip
    assert (RunFolder(tmp_path).state(), RunFolder(tmp_path).progress()) == ("interrupted", STATUS.progress)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"step": 3}', "null"])
def test_what_says_nothing_is_no_run(tmp_path: Path, content: str) -> None:
    (tmp_path / "status.json").write_text(content)
    assert Status.find(tmp_path / "status.json") is None
    assert Status.find(tmp_path / "nothing.json") is None
    assert (RunFolder(tmp_path).state(), RunFolder(tmp_path).progress()) == ("", Progress())


def test_it_is_told_in_words() -> None:
    assert STATUS.shown == "interrupted at step 120 of 300"
    assert replace(STATUS, state="finished").shown == "finished"


def test_lines_that_are_being_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert (whole_records(path), read_records(path), find_environment(path)) == ([], [], {})
    path.write_text('{"step": 1}\n\n{"step": 2}\n{"ste')
    assert whole_records(path) == [{"step": 1}, {"step": 2}]
    with pytest.raises(ValueError, match="Unterminated"):
        read_records(path)
    path.write_text('{"step": 1}\n{"step": 2}')
    assert (len(whole_records(path)), len(read_records(path))) == (1, 2)
    assert find_environment(path) == {}


def test_bytes_that_are_no_status_are_none() -> None:
    for content in (None, b"", b"{", b"[]", b"{}", b'{"state": "running", "step": []}'[:-3]):
        assert Status.parse(content) is None
    parsed = Status.parse(b'{"state": "finished", "step": 4, "best_step": 2, "total_steps": 4}')
    assert parsed is not None
    assert (parsed.state, parsed.progress.best_step) == ("finished", 2)
