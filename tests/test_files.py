"""Files and folders are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragcun_cli import files


def test_a_file_is_replaced_at_once_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "below" / "file.json"
    files.write_json(path, {"a": 1})
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert path.stat().st_mode & 0o777 == 0o644

    def no_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_disk)
    with pytest.raises(OSError, match="No space"):
        files.write_json(path, {"a": 2})
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [each.name for each in path.parent.iterdir()] == ["file.json"]


def test_a_folder_takes_its_name_only_when_it_is_complete(tmp_path: Path) -> None:
    final = tmp_path / "model"
    with files.new_folder(final) as folder:
        (folder / "one").write_text("1")
        assert not final.exists()
    assert (final / "one").read_text() == "1"

    def fail_half_way() -> None:
        with files.new_folder(final) as folder:
            (folder / "two").write_text("2")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert [path.name for path in final.iterdir()] == ["one"]
    with files.new_folder(final) as folder:
        (folder / "three").write_text("3")
    assert [path.name for path in final.iterdir()] == ["three"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".model.0123abcd.tmp").mkdir()
    (tmp_path / ".model.0123abcd.tmp" / "half").write_text("1")
    # Killed between moving the old folder aside and naming the new one.
    (tmp_path / ".best.0123abcd.old" / "best").mkdir(parents=True)
    (tmp_path / ".best.0123abcd.old" / "best" / "weights").write_text("old")
    # Killed before removing the old folder, the new one in its place.
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "weights").write_text("new")
    (tmp_path / ".final.0123abcd.old" / "final").mkdir(parents=True)
    files.sweep_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "final"]
    assert (tmp_path / "best" / "weights").read_text() == "old"
    assert (tmp_path / "final" / "weights").read_text() == "new"


def test_of_one_folder_nothing_is_swept_that_may_be_a_siblings(tmp_path: Path) -> None:
    for name in ("set[1]", "set", "set.v2", "set1"):
        (tmp_path / f".{name}.0123abcd.tmp").mkdir()
    files.sweep_leftovers(tmp_path, "set[1]")
    files.sweep_leftovers(tmp_path, "set")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".set.v2.0123abcd.tmp", ".set1.0123abcd.tmp"]


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert files.sha256_of_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_that_takes_no_file_is_said_with_the_files_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, flags: int, mode: int) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.open", refused)
    with pytest.raises(PermissionError) as raised:
        files.write_text(tmp_path / "mine.yaml", "x")
    assert raised.value.filename == str(tmp_path / "mine.yaml")
