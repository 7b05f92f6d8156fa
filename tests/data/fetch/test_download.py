"""Several files: what is here, what is not, room, locks, Ctrl-C; and the command around it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragcun_cli.data import registry
from ragcun_cli.data.fetch import catalogue, download, sources
from ragcun_cli.data.fetch.download import fetch_all
from ragcun_cli.data.fetch.receipts import read_receipt
from ragcun_cli.data.fetch.sources import RetryPolicy
from ragcun_cli.data.fetch.transfer import DownloadTask
from ragcun_cli.errors import DataError, EnvironmentUnfit, RagcunError
from tests.conftest import RunCommand
from tests.faulty_server import FaultyServer, drip, drop_after, serving, silent_for, status
from tests.tiny_models import write_collection

pytestmark = pytest.mark.processes

CONTENTS = {name: random.Random(name).randbytes(60_000) for name in ("a.zip", "b.zip", "c.zip")}
PATIENCE = RetryPolicy(seconds=2, attempts=2, pause=0.01)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with serving() as running:
        running.files |= CONTENTS
        yield running


def wanted(server: FaultyServer, folder: Path) -> list[DownloadTask]:
    return [
        DownloadTask(folder / name, f"{server.url}/{name}", len(content), f"md5:{hashlib.md5(content).hexdigest()}")
        for name, content in CONTENTS.items()
    ]


def test_all_arrive_and_a_second_call_asks_for_nothing(server: FaultyServer, tmp_path: Path) -> None:
    fetch_all(tmp_path, wanted(server, tmp_path), 2, PATIENCE)
    assert {name: (tmp_path / name).read_bytes() for name in CONTENTS} == CONTENTS
    receipt = read_receipt(tmp_path, tmp_path / "a.zip")
    assert receipt is not None
    assert receipt["published"]
    server.requests.clear()
    fetch_all(tmp_path, wanted(server, tmp_path), 2, PATIENCE)
    assert server.requests == []
    (tmp_path / "a.zip").write_bytes(b"other")
    assert read_receipt(tmp_path, tmp_path / "a.zip") is None


def test_a_file_that_fails_stops_no_other(server: FaultyServer, tmp_path: Path) -> None:
    del server.files["b.zip"]
    server.files["c.zip"] = CONTENTS["a.zip"]
    with pytest.raises(RagcunError) as caught:
        fetch_all(tmp_path, wanted(server, tmp_path), 1, PATIENCE)
    assert "b.zip: the server answered 404" in caught.value.message
    assert "c.zip: the download has md5" in caught.value.message
    assert "1 of 3 files were downloaded" in caught.value.hint
    assert (tmp_path / "a.zip").is_file()
    assert not (tmp_path / "b.zip").exists()
    assert not (tmp_path / "c.zip").exists()


def test_a_file_of_another_content_is_not_written_over_unasked(server: FaultyServer, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"a\.zip: this file has md5"):
        fetch_all(tmp_path, wanted(server, tmp_path), 2, PATIENCE)
    assert (tmp_path / "a.zip").read_bytes() == b"mine"
    assert server.requests == []
    fetch_all(tmp_path, wanted(server, tmp_path), 2, PATIENCE, overwrite=True)
    assert (tmp_path / "a.zip").read_bytes() == CONTENTS["a.zip"]
    (tmp_path / "b.zip").touch()  # only its time changes: it is checked again and kept
    server.requests.clear()
    fetch_all(tmp_path, wanted(server, tmp_path), 2, PATIENCE)
    assert server.requests == []


def test_a_disk_without_room_is_named_before_the_first_byte(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, download.SPARE_BYTES + 100_000))
    with pytest.raises(EnvironmentUnfit, match=r"needs 0\.2 MB, but only 67\.2 MB are free"):
        fetch_all(tmp_path, wanted(server, tmp_path), 2, PATIENCE)
    assert server.requests == []


@pytest.fixture
def tiny_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """SciFact and NFCorpus, as if these contents had been published."""
    for name, content in (("scifact", CONTENTS["a.zip"]), ("nfcorpus", CONTENTS["b.zip"])):
        known = registry.KNOWN[name]
        md5 = hashlib.md5(content).hexdigest()
        monkeypatch.setitem(registry.KNOWN, name, dataclasses.replace(known, zip_bytes=len(content), md5=md5))


def test_download_and_list(
    server: FaultyServer, tmp_path: Path, tiny_registry: None, ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files |= {"beir/scifact.zip": CONTENTS["a.zip"], "beir/nfcorpus.zip": CONTENTS["b.zip"]}
    server.faults = [drop_after(20_000), status(503, Retry_After="0")]
    monkeypatch.setattr(registry, "SERVER", f"{server.url}/beir")
    done = ragcun("data", "download", "scifact", "nfcorpus", "--data-dir", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert "scifact (scientific claims): 0.1 MB. Licence: CC BY-NC 4.0." in done.stderr
    assert "scifact.zip: downloaded and verified" in done.stderr
    again = ragcun("data", "download", "scifact", "--data-dir", tmp_path, "--json")
    assert [(each["name"], each["state"]) for each in json.loads(again.stdout)] == [("scifact", "verified")]
    states = {each["name"]: each["state"] for each in listed(ragcun, tmp_path)}
    assert (states["scifact"], states["nfcorpus"], states["nq"]) == ("verified", "verified", "")
    (tmp_path / "nfcorpus.zip").write_bytes(b"else")
    (tmp_path / "nq.zip.part").write_bytes(b"a part")
    (tmp_path / "fiqa").mkdir()
    for needed in ("corpus.jsonl", "queries.jsonl"):
        (tmp_path / "fiqa" / needed).touch()
    states = {each["name"]: each["state"] for each in listed(ragcun, tmp_path)}
    assert (states["nfcorpus"], states["nq"], states["fiqa"]) == ("here", "part of it", "here")
    write_collection(tmp_path / "my-corpus", 5)
    for name in ("my-corpus", "holiday"):
        (tmp_path / f"{name}.zip").write_bytes(b"no collection")
    own = [each for each in listed(ragcun, tmp_path) if each["kind"] == "own"]
    assert [(each["name"], each["state"]) for each in own] == [("my-corpus", "here")]
    table = ragcun("data", "list", "--data-dir", tmp_path).stdout
    assert "CC BY-SA 4.0" in table
    assert f"ragcun eval beir --model RUN --datasets my-corpus --data-dir {tmp_path}" in table


def listed(ragcun: RunCommand, folder: Path) -> list[dict[str, str]]:
    entries: list[dict[str, str]] = json.loads(ragcun("data", "list", "--data-dir", folder, "--json").stdout)
    return entries


@pytest.mark.parametrize("kind", ["url", "folder"])
def test_a_mirror(server: FaultyServer, tmp_path: Path, tiny_registry: None, ragcun: RunCommand, kind: str) -> None:
    (tmp_path / "usb").mkdir()
    (tmp_path / "usb" / "scifact.zip").write_bytes(CONTENTS["a.zip"])
    server.files["mirror/scifact.zip"] = CONTENTS["a.zip"]
    mirror = f"{server.url}/mirror/" if kind == "url" else tmp_path / "usb"
    done = ragcun("data", "download", "scifact", "--data-dir", tmp_path / "data", "--mirror", mirror)
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "data" / "scifact.zip").read_bytes() == CONTENTS["a.zip"]
    lacking = ragcun("data", "download", "nfcorpus", "--data-dir", tmp_path / "data", "--mirror", mirror)
    assert lacking.exit_code == 4
    assert "--mirror" in lacking.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["scifcat"], 2, "did you mean 'scifact'?"),
        (["robust04"], 2, "ragcun data import robust04"),
        (["scifact", "--mirror", "nowhere"], 2, "--mirror nowhere: no such folder"),
        (["scifact", "--mirror", "http://"], 2, "--mirror http://: not an http(s) address"),
        (["scifact", "--mirror", "ftp://host"], 2, "not an http(s) address"),
        (["scifact", "--mirror", "http://a..b"], 4, "not a valid address"),
        (["scifact", "--mirror", "http://127.0.0.1:9", "--attempts", "1"], 4, "gave up after 1 attempt:"),
    ],
)
def test_what_cannot_be_downloaded(
    tmp_path: Path, ragcun: RunCommand, arguments: list[str], code: int, message: str
) -> None:
    done = ragcun("data", "download", *arguments, "--data-dir", tmp_path)
    assert done.exit_code == code, done.stderr
    assert message in " ".join(done.stderr.split())
    assert not list(tmp_path.glob("*.zip"))


def test_groups_and_a_dry_run(tmp_path: Path, ragcun: RunCommand) -> None:
    assert catalogue.expand(["beir"]) == list(registry.PUBLIC)
    assert catalogue.expand(["all", "scifact"])[-2:] == ["msmarco-corpus", "msmarco"]
    assert len(catalogue.expand(["all"])) == 16
    done = ragcun("data", "download", "beir", "msmarco-corpus", "--data-dir", tmp_path, "--dry-run")
    assert done.exit_code == 0
    assert "11,169.6 MB to download" in done.stderr
    assert list(tmp_path.iterdir()) == []


PROGRAM = """
import sys, hashlib
from pathlib import Path
from ragcun_cli import main
from ragcun_cli.data.fetch import download
from ragcun_cli.data.fetch.sources import RetryPolicy
from ragcun_cli.data.fetch.transfer import DownloadTask
url, folder, md5 = sys.argv[1:]
root = Path(folder)
def app(arguments, **_):
    download.fetch_all(root, [DownloadTask(root / "a.zip", url, None, "md5:" + md5)], 2, RetryPolicy(seconds=20))
main.app = app
main.main()
"""


def started(server: FaultyServer, folder: Path) -> subprocess.Popen[str]:
    md5 = hashlib.md5(CONTENTS["a.zip"]).hexdigest()
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, f"{server.url}/a.zip", str(folder), md5],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "NO_PROXY": "127.0.0.1"},
    )  # fmt: skip


def wait_for_a_part(folder: Path) -> None:
    deadline = time.monotonic() + 30
    while not any(path.stat().st_size for path in folder.glob("a.zip.part")):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("how", ["drips", "silent"])
def test_ctrl_c_leaves_a_part_to_go_on_from(server: FaultyServer, tmp_path: Path, how: str) -> None:
    """At once, even where a server is silent."""
    server.faults = [drip(0.1, 2000)] if how == "drips" else [drop_after(5000), silent_for(15)]
    process = started(server, tmp_path)
    wait_for_a_part(tmp_path)
    if how == "silent":
        time.sleep(2)  # the second request is being waited for
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - begun < 10
    assert process.returncode == 130
    assert "Partial files are kept" in said
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.name.startswith("a")) == [".json", ".part"]
    server.faults, server.requests = [], []
    assert started(server, tmp_path).wait(60) == 0
    assert str(server.asked_ranges()[0]).startswith("bytes=")
    assert (tmp_path / "a.zip").read_bytes() == CONTENTS["a.zip"]


def test_two_processes_fetch_a_file_once(server: FaultyServer, tmp_path: Path) -> None:
    server.faults = [drip(0.1, 4000)]
    first = started(server, tmp_path)
    wait_for_a_part(tmp_path)
    second = started(server, tmp_path)
    said = [process.communicate(timeout=60)[1] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), said
    assert len(server.requests) == 1
    assert "another ragcun process is downloading it" in said[1]
    assert (tmp_path / "a.zip").read_bytes() == CONTENTS["a.zip"]


def test_what_a_server_may_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)
    assert sources._retry_after("7") == 7
    assert sources._retry_after("Tue, 14 Nov 2023 22:13:30 GMT") == 10
    assert sources._retry_after("soon") is None
    assert sources._retry_after("²") is None


def test_overwrite_replaces_what_a_receipt_says_of_another_version(server: FaultyServer, tmp_path: Path) -> None:
    wish = wanted(server, tmp_path)[0]
    old = dataclasses.replace(wish, address=f"{server.url}/b.zip", digest=wanted(server, tmp_path)[1].digest)
    fetch_all(tmp_path, [old], 1, PATIENCE)
    with pytest.raises(DataError, match=r"this file has md5"):
        fetch_all(tmp_path, [wish], 1, PATIENCE)
    fetch_all(tmp_path, [wish], 1, PATIENCE, overwrite=True)
    assert wish.path.read_bytes() == CONTENTS["a.zip"]


def test_a_file_without_a_checksum_is_here_and_never_verified(server: FaultyServer, tmp_path: Path) -> None:
    unknown = dataclasses.replace(wanted(server, tmp_path)[0], digest=None)
    fetch_all(tmp_path, [unknown], 1, PATIENCE)
    receipt = read_receipt(tmp_path, unknown.path)
    assert receipt is not None
    assert not receipt["published"]
    copied = dataclasses.replace(unknown, digest=receipt["digest"], published=False)
    fetch_all(tmp_path, [copied], 1, PATIENCE)
    assert not (read_receipt(tmp_path, unknown.path) or {})["published"]
    server.files["a.zip"] = CONTENTS["b.zip"]
    fetch_all(tmp_path, [unknown], 1, PATIENCE, overwrite=True)
    assert unknown.path.read_bytes() == CONTENTS["b.zip"]
    with pytest.raises(DataError, match="this file has sha256"):
        fetch_all(tmp_path, [dataclasses.replace(copied, published=True)], 1, PATIENCE)


def test_folders_in_the_way_are_all_named(server: FaultyServer, tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        (tmp_path / f"{name}.part").mkdir(parents=True)
        (tmp_path / f"{name}.part" / "x").touch()
    with pytest.raises(RagcunError) as caught:
        fetch_all(tmp_path, wanted(server, tmp_path), 2, PATIENCE)
    assert "a.zip.part" in caught.value.message
    assert "b.zip.part" in caught.value.message


def test_a_hub_that_cannot_be_asked_stops_no_other(
    server: FaultyServer, tmp_path: Path, tiny_registry: None, ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(address: str) -> object:
        raise EnvironmentUnfit("the hub cannot be reached", "--mirror")

    monkeypatch.setattr(catalogue, "find_on_hub", refuse)
    monkeypatch.setattr(registry, "SERVER", f"{server.url}/beir")
    server.files["beir/scifact.zip"] = CONTENTS["a.zip"]
    done = ragcun("data", "download", "scifact", "msmarco", "--data-dir", tmp_path)
    assert done.exit_code == 4
    assert "msmarco cannot be downloaded: the hub cannot be reached" in done.stderr
    assert (tmp_path / "scifact.zip").is_file()
