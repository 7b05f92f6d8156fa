"""Copies of folders: whole or not there, and never vouched for by another folder's manifest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from ragcun_cli.manifest import MANIFEST, seal
from ragcun_cli.storage.snapshots import (
    fetch_folder,
    folders_in,
    remove_folder,
    snapshot,
    upload_folder,
    upload_snapshot,
)
from ragcun_cli.storage.stores import FolderStore, open_store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run" / "below" / "it").mkdir(parents=True)
    (tmp_path / "run" / "weights").write_bytes(b"1234")
    (tmp_path / "run" / "below" / "it" / "log").write_text("")
    (tmp_path / "run" / "below" / "recipe.yaml").write_text("name: a\n")
    return tmp_path / "run"


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("keeps_manifest", [True, False])
def test_a_copy_comes_back_as_it_was(tmp_path: Path, folder: Path, keeps_manifest: bool) -> None:
    if keeps_manifest:
        seal(folder, step=3)
    store = open_store(str(tmp_path / "backup"), "arm")
    upload_folder(store, folder, "step-3")
    assert (tmp_path / "backup" / "arm" / "step-3" / "weights").read_bytes() == b"1234"
    assert fetch_folder(store, "step-3", tmp_path / "fetched", keeps_manifest) is None
    assert content(tmp_path / "fetched") == content(folder)


def test_only_what_changed_is_copied_again_and_its_manifest_goes_first(tmp_path: Path, folder: Path) -> None:
    done: list[str] = []

    class Watched(FolderStore):
        def put(self, key: str, path: Path) -> None:
            done.append(f"put {key}")
            super().put(key, path)

        def delete(self, keys: list[str]) -> None:
            done.extend(f"delete {key}" for key in keys)
            super().delete(keys)

    store = Watched(tmp_path / "backup")
    upload_snapshot(store, folder, "step-3")
    assert sorted(done) == ["put step-3/below/it/log", "put step-3/below/recipe.yaml", "put step-3/weights"]
    done.clear()
    upload_snapshot(store, folder, "step-3")
    assert done == []
    (folder / "weights").write_bytes(b"5678")
    upload_snapshot(store, folder, "step-3")
    assert done[0] == f"delete step-3/{MANIFEST}"
    assert fetch_folder(store, "step-3", tmp_path / "fetched", keeps_manifest=False) is None
    assert (tmp_path / "fetched" / "weights").read_bytes() == b"5678"


def test_what_is_not_whole_is_not_fetched(tmp_path: Path, folder: Path) -> None:
    store = FolderStore(tmp_path / "backup")
    upload_folder(store, folder, "step-3")
    assert folders_in(store, "") == ["step-3"]
    copied = tmp_path / "backup" / "step-3"
    (copied / "weights").write_bytes(b"12345")
    assert "5 bytes, not 4" in str(fetch_folder(store, "step-3", tmp_path / "fetched", keeps_manifest=False))
    (copied / "weights").unlink()
    assert fetch_folder(store, "step-3", tmp_path / "fetched", keeps_manifest=False) is not None
    (copied / MANIFEST).write_text("{}")
    assert "cannot be read" in str(fetch_folder(store, "step-3", tmp_path / "fetched", keeps_manifest=False))
    remove_folder(store, "step-3")
    assert f"has no {MANIFEST}" in str(fetch_folder(store, "step-3", tmp_path / "fetched", keeps_manifest=False))
    assert folders_in(store, "") == []
    assert not (tmp_path / "fetched").exists()
    assert content(tmp_path / "backup") == {}


def test_a_held_folder_stays_while_it_is_changed_and_one_that_is_replaced_is_not_copied(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with snapshot(folder) as links:
        before = content(links)
        (folder / "below" / "recipe.yaml").unlink()
        assert content(links) == before == {"weights": b"1234", "below/it/log": b"", "below/recipe.yaml": b"name: a\n"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]

    class Replacing(FolderStore):
        def read(self, key: str) -> bytes | None:
            raise AssertionError("copied")

    real = os.link

    def replaced(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", real)
        real(source, target)
        folder.rename(tmp_path / "older")
        shutil.copytree(tmp_path / "older", folder)

    monkeypatch.setattr(os, "link", replaced)
    with pytest.raises(OSError, match="replaced while it was being copied"):
        upload_folder(Replacing(tmp_path / "backup"), folder, "step-3")


@pytest.mark.parametrize("name", ["../outside", "/tmp/ragcun-outside", "a\\b", "a//b", "a\nb"])
def test_a_manifest_cannot_name_a_place_outside_its_folder(tmp_path: Path, folder: Path, name: str) -> None:
    store = FolderStore(tmp_path / "backup")
    upload_folder(store, folder, "step-3")
    entry = {"bytes": 4, "sha256": hashlib.sha256(b"1234").hexdigest()}
    (tmp_path / "backup" / "step-3" / MANIFEST).write_text(json.dumps({"files": {"weights": entry, name: entry}}))
    (tmp_path / "backup" / "outside").write_bytes(b"1234")
    problem = fetch_folder(store, "step-3", tmp_path / "deep" / "fetched", keeps_manifest=False)
    assert "refused as a file name" in str(problem)
    assert list(tmp_path.rglob("deep/*")) == []
    assert not Path("/tmp/ragcun-outside").exists()
