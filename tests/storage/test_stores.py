"""Where backups lie, folder and S3 (moto, and recorded answers for what moto never gives): objects and refusals."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from ragcun_cli.errors import EnvironmentUnfit, UsageError
from ragcun_cli.safe_paths import UnsafeName
from ragcun_cli.storage.s3 import AlreadyThereError, S3Store
from ragcun_cli.storage.stores import FolderStore, ObjectStore, open_store
from tests.conftest import BUCKET


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return open_store(str(tmp_path / "backup"), "run")
    request.getfixturevalue("s3")
    return open_store(f"s3://{BUCKET}/runs", "run")


def test_objects_come_back_by_their_keys(store: ObjectStore, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    for content in (b"one", b"two"):
        source.write_bytes(content)
        store.put("a/x", source)
        store.fetch("a/x", back)
        assert store.read("a/x") == back.read_bytes() == content
    store.put_new("a/b/y", b"three")
    with pytest.raises(AlreadyThereError):
        store.put_new("a/b/y", b"four")
    store.put_new("c/z", b"five")
    assert store.read("a/b/y") == b"three"
    assert sorted(store.keys("")) == ["a/b/y", "a/x", "c/z"]
    assert sorted(store.keys("a/")) == ["a/b/y", "a/x"]
    assert store.keys("a/b") == ["a/b/y"]
    assert store.read("a/nothing") is None
    with pytest.raises(FileNotFoundError):
        store.fetch("a/nothing", back)
    store.delete(["a/x", "a/nothing"])
    assert sorted(store.keys("")) == ["a/b/y", "c/z"]
    store.delete(["a/b/y", "c/z"])
    assert store.keys("") == []


def test_a_place_is_looked_at_without_a_trace(store: ObjectStore) -> None:
    store.check()
    assert store.keys("") == []


def test_a_folder_shows_no_half_written_file_and_loses_its_empty_folders(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for key in ("a/x", "a/y", "b/x"):
        store.put_new(key, b"")
    (tmp_path / "a" / ".x.0123abcd.new").touch()
    assert store.keys("") == ["a/x", "a/y", "b/x"]
    store.delete(["a/x", "b/x"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_the_name_of_a_run_is_the_last_part_of_its_place(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for address, prefix in (("s3://b", "run/"), ("s3://b/", "run/"), ("s3://b/p/q/", "p/q/run/")):
        store = open_store(address, "run")
        assert isinstance(store, S3Store)
        assert (store.bucket, store.prefix) == ("b", prefix)
    monkeypatch.setenv("HOME", "/home/someone")
    assert open_store("~/backup", "run") == FolderStore(Path("/home/someone/backup/run"))
    for address, words in (
        ("s3://", "the bucket's name is missing"),
        ("s3:///p", "the bucket's name is missing"),
        ("gs://b/p", "is neither"),
    ):
        with pytest.raises(UsageError, match=f"backup: {address}: {words}"):
            open_store(address, "run")


def test_a_folder_is_refused_that_cannot_be_made_or_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentUnfit, match="Not a directory"):
        open_store(str(tmp_path / "file"), "run").check()
    store = FolderStore(tmp_path / "new" / "run")
    store.check()
    assert store.root.is_dir()
    asked: list[int] = []

    def refused(path: Path, mode: int) -> bool:  # of the system: root may do everything
        asked.append(mode)
        return False

    monkeypatch.setattr(os, "access", refused)
    with pytest.raises(EnvironmentUnfit, match=f"backup: {store.root}: no permission to write to it"):
        store.check()
    assert asked == [os.W_OK | os.X_OK]


def test_s3_is_tried_again_before_an_error_is_a_runs(s3: Any) -> None:
    store = open_store(f"s3://{BUCKET}", "run")
    assert isinstance(store, S3Store)
    configured = store.client.meta.config
    assert configured.retries == {"mode": "standard", "total_max_attempts": 5}
    assert (configured.connect_timeout, configured.read_timeout) == (10, 60)


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("NoSuchBucket", 404, "NoSuchBucket"),
        ("AccessDenied", 403, "AccessDenied"),
        ("Odd", 499, "Odd"),
        ("Busy", 500, None),
        ("SlowDown", 503, None),
    ],
)
def test_a_bucket_is_refused_for_what_time_does_not_cure(code: str, status: int, words: str | None) -> None:
    store, stub = answering()
    with stub:
        stub.add_client_error("list_objects_v2", code, code, status)
        if words is None:
            store.check()
        else:
            with pytest.raises(EnvironmentUnfit, match=f"backup: s3://b/p/: .*{words}"):
                store.check()


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("NoSuchKey", 404, FileNotFoundError),
        ("404", 404, FileNotFoundError),
        ("NoSuchBucket", 404, OSError),
        ("NoSuchKey", 400, OSError),
        ("AccessDenied", 403, PermissionError),
        ("PreconditionFailed", 412, AlreadyThereError),
        ("SlowDown", 503, OSError),
    ],
)
def test_errors_of_s3_are_the_systems(code: str, status: int, kind: type[OSError]) -> None:
    store, stub = answering()
    with stub:
        stub.add_client_error("put_object", code, "said", status)
        with pytest.raises(OSError, match=r"s3://b/p/: .*said") as caught:
            store.put_new("k", b"")
    assert type(caught.value) is kind


def test_no_credentials_are_said_with_what_gives_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with pytest.raises(EnvironmentUnfit, match=r"s3://b/p/run/: no AWS credentials") as caught:
        open_store("s3://b/p", "run").check()
    assert "aws sso login" in caught.value.hint


def test_a_name_that_no_bucket_has_is_said_as_such(s3: Any) -> None:
    with pytest.raises(EnvironmentUnfit, match="Invalid bucket name") as caught:
        open_store("s3://Not A Bucket", "run").check()
    assert caught.value.hint == "Check the bucket's name."


def test_a_network_that_is_not_there_is_said_as_such(s3: Any) -> None:
    store = S3Store(boto3.client("s3", endpoint_url="http://127.0.0.1:9"), "b", "p/")
    with pytest.raises(EnvironmentUnfit, match="Could not connect") as caught:
        store.check()
    assert caught.value.hint == "Is the network up?"
    with pytest.raises(OSError, match="s3://b/p/: Could not connect"):
        store.keys("")


def answering() -> tuple[S3Store, Stubber]:
    """A place whose answers a test writes down."""
    client = boto3.client("s3", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    return S3Store(client, "b", "p/"), Stubber(client)


def test_a_folder_holds_no_key_that_leads_outside(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"mine")
    store = FolderStore(tmp_path / "backup")
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "link").symlink_to(tmp_path / "secret")
    source = tmp_path / "secret"
    for key in ("../secret", "link"):
        for use in (
            lambda key: store.read(key),
            lambda key: store.fetch(key, tmp_path / "copy"),
            lambda key: store.put(key, source),
            lambda key: store.put_new(key, b"theirs"),
            lambda key: store.delete([key]),
        ):
            with pytest.raises(UnsafeName):
                use(key)
    assert source.read_bytes() == b"mine"
    assert not (tmp_path / "copy").exists()
