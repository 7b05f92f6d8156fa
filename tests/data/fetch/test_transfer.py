"""Whatever a server does, the right file arrives or a clear error, and no wrong file bears the right name."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragcun_cli.data.fetch.sources import RetryPolicy
from ragcun_cli.data.fetch.transfer import DownloadStopped, DownloadTask, transfer
from ragcun_cli.errors import DataError, EnvironmentUnfit, RagcunError
from tests.faulty_server import (
    Answer,
    Fault,
    FaultyServer,
    both,
    claim_length,
    drip,
    drop_after,
    flip_a_byte,
    ignore_range,
    serving,
    silent_for,
    status,
)

CONTENT = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
PATIENCE = RetryPolicy(seconds=0.5, attempts=4, pause=0.01, longest_pause=2)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with serving() as running:
        running.files["file.zip"] = CONTENT
        yield running


def md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


def wanted(server: FaultyServer, folder: Path, known: bool = True) -> DownloadTask:
    digest, size = (md5(CONTENT), len(CONTENT)) if known else (None, None)
    return DownloadTask(folder / "file.zip", f"{server.url}/file.zip", size, digest)


def bring(wish: DownloadTask, patience: RetryPolicy = PATIENCE) -> None:
    transfer(wish, patience, threading.Event(), lambda here, whole: None)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("known", [True, False])
def test_a_whole_file(server: FaultyServer, tmp_path: Path, known: bool) -> None:
    bring(wanted(server, tmp_path, known))
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert names(tmp_path) == ["file.zip"]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    "faults",
    [
        [drop_after(100_000), drop_after(50_000)],
        [drop_after(0)] * 3,
        [drop_after(100_000), both(ignore_range, drop_after(150_000)), ignore_range],
        [status(503, Retry_After="0"), status(429, Retry_After="1"), status(500)],
        [both(status(503)), drop_after(10), status(502)],
        [drip(0.2, 40), drop_after(1000)],
        [silent_for(1.0)],
        [drop_after(7)] * 30,
    ],
    ids=["drops", "nothing", "no range", "busy", "mixed", "drips", "silent", "30 drops"],
)
def test_faults_that_pass(server: FaultyServer, tmp_path: Path, faults: list[Fault], known: bool) -> None:
    server.faults = list(faults)
    bring(wanted(server, tmp_path, known))
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert names(tmp_path) == ["file.zip"]


def test_a_broken_off_download_goes_on_where_it_was(server: FaultyServer, tmp_path: Path) -> None:
    server.faults = [drop_after(100_000)]
    bring(wanted(server, tmp_path))
    assert server.asked_ranges() == [None, "bytes=100000-"]
    assert server.requests[1].headers["if-range"].startswith('"')


def test_a_later_call_goes_on_where_the_first_gave_up(server: FaultyServer, tmp_path: Path) -> None:
    server.faults = [drop_after(100_000), *[status(503)] * 4]
    with pytest.raises(EnvironmentUnfit, match="gave up after 4 attempts") as caught:
        bring(wanted(server, tmp_path))
    assert "100000 bytes are kept" in caught.value.hint
    assert names(tmp_path) == ["file.zip.part", "file.zip.part.json"]
    bring(wanted(server, tmp_path))
    assert server.asked_ranges()[-1] == "bytes=100000-"
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("faults", [[], [ignore_range]])
def test_a_file_that_changes_between_two_attempts_is_never_mixed(
    server: FaultyServer, tmp_path: Path, known: bool, faults: list[Fault]
) -> None:
    server.files["file.zip"] = OTHER
    server.faults = [drop_after(100_000), *[status(503)] * 4]
    with pytest.raises(EnvironmentUnfit):
        bring(wanted(server, tmp_path, known))
    server.files["file.zip"], server.faults = CONTENT, list(faults)
    bring(wanted(server, tmp_path, known))
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


def test_a_server_that_cannot_tell_its_versions_apart(server: FaultyServer, tmp_path: Path) -> None:
    """Without ETag and date a part is gone on from only where a checksum will tell in the end."""

    def without_tag(answer: Answer) -> None:
        answer.headers.clear()

    server.files["file.zip"] = OTHER
    server.faults = [both(without_tag, drop_after(100_000)), *[status(503)] * 4]
    with pytest.raises(EnvironmentUnfit):
        bring(wanted(server, tmp_path))
    server.files["file.zip"], server.faults, server.requests = CONTENT, [without_tag, without_tag], []
    bring(wanted(server, tmp_path))
    assert server.asked_ranges() == ["bytes=100000-", None]  # the mixture was found out and fetched anew
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    (tmp_path / "file.zip").unlink()
    server.faults, server.requests = [both(without_tag, drop_after(100_000)), without_tag], []
    bring(wanted(server, tmp_path, known=False))
    assert server.asked_ranges() == [None, None]


@pytest.mark.parametrize(
    ("faults", "error", "message"),
    [
        ([flip_a_byte] * 2, DataError, "the download has md5:.*twice"),
        ([claim_length(1000)], DataError, "has 1000 bytes, but the published file has 300000"),
        ([claim_length(400_000)], DataError, "has 400000 bytes, but the published file has 300000"),
        ([status(404)], EnvironmentUnfit, "404"),
        ([status(403)], EnvironmentUnfit, "403"),
        ([status(410)], EnvironmentUnfit, "410"),
        ([status(400)], EnvironmentUnfit, "400"),
        ([status(503)] * 4, EnvironmentUnfit, "gave up after 4 attempts: .* 503"),
        ([status(429, Retry_After="3600")], EnvironmentUnfit, "asks for a wait of 3600 s"),
        ([silent_for(1.5)] * 4, EnvironmentUnfit, "gave up after 4 attempts: .*timed out"),
        ([drip(0.2, 10)] * 40, EnvironmentUnfit, "gave up|only"),
    ],
    ids=["flipped", "short", "long", "404", "403", "410", "400", "503", "429", "silent", "drips"],
)
def test_faults_that_stay(
    server: FaultyServer, tmp_path: Path, faults: list[Fault], error: type[RagcunError], message: str
) -> None:
    server.faults = list(faults)
    if message.startswith("gave up|"):
        server.files["file.zip"] = CONTENT
        # Each attempt brings a little more, so that only patience ends it.
        server.faults = [both(drip(0.2, 10), ignore_range)] * 40
    with pytest.raises(error, match=message) as caught:
        bring(wanted(server, tmp_path))
    assert not (tmp_path / "file.zip").exists()
    assert caught.value.hint


def test_a_length_that_is_not_kept_to(server: FaultyServer, tmp_path: Path) -> None:
    """Of a file whose length nobody published."""
    server.faults = [claim_length(400_000)]
    bring(wanted(server, tmp_path, known=False))
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


def test_one_flipped_byte_is_fetched_again(server: FaultyServer, tmp_path: Path) -> None:
    server.faults = [flip_a_byte]
    bring(wanted(server, tmp_path))
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert server.asked_ranges() == [None, None]


def test_a_whole_part_is_not_asked_for_again(server: FaultyServer, tmp_path: Path) -> None:
    (tmp_path / "file.zip.part").write_bytes(CONTENT)
    bring(wanted(server, tmp_path))
    assert server.requests == []
    for size in (len(CONTENT), len(CONTENT) + 1):
        (tmp_path / "file.zip").unlink()
        (tmp_path / "file.zip.part").write_bytes((CONTENT + b"x")[:size])
        bring(DownloadTask(tmp_path / "file.zip", f"{server.url}/file.zip", None, md5(CONTENT)))
        assert (tmp_path / "file.zip").read_bytes() == CONTENT


def test_a_stopped_transfer_keeps_its_part(server: FaultyServer, tmp_path: Path) -> None:
    stop = threading.Event()

    def stop_soon(here: int, whole: int | None) -> None:
        if here > 50_000:
            stop.set()

    with pytest.raises(DownloadStopped):
        transfer(wanted(server, tmp_path), PATIENCE, stop, stop_soon)
    kept = (tmp_path / "file.zip.part").stat().st_size
    assert 50_000 < kept < len(CONTENT)
    bring(wanted(server, tmp_path))
    assert server.asked_ranges() == [None, f"bytes={kept}-"]
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentUnfit, match=r"gave up after 4 attempts: .*refused"):
        bring(DownloadTask(tmp_path / "file.zip", "http://127.0.0.1:9/file.zip"))
    with pytest.raises(EnvironmentUnfit, match="not a valid address"):
        bring(DownloadTask(tmp_path / "file.zip", "gopher://127.0.0.1/file.zip"))


def test_a_folder_as_source(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    source = tmp_path / "there" / "file.zip"
    source.write_bytes(CONTENT)
    wish = DownloadTask(tmp_path / "file.zip", str(source), len(CONTENT), md5(CONTENT))
    bring(wish)
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    (tmp_path / "file.zip").unlink()
    source.write_bytes(OTHER)
    with pytest.raises(DataError, match="twice"):
        bring(wish)
    source.unlink()
    with pytest.raises(EnvironmentUnfit, match="no such file"):
        bring(wish)
    assert names(tmp_path) == ["there"]


def test_a_token_is_sent_and_netrc_is_not_asked(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    wish = DownloadTask(tmp_path / "file.zip", f"{server.url}/file.zip", headers={"Authorization": "Bearer token"})
    bring(wish)
    assert server.requests[0].headers["authorization"] == "Bearer token"


def test_a_proxy_is_respected(server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    server.files["http://somewhere.test/file.zip"] = CONTENT  # what a proxy is asked for
    bring(DownloadTask(tmp_path / "file.zip", "http://somewhere.test/file.zip", len(CONTENT), md5(CONTENT)))
    assert server.requests[0].path == "http://somewhere.test/file.zip"


def test_an_answer_that_does_not_say_where_it_ends_is_no_file(server: FaultyServer, tmp_path: Path) -> None:
    def endless(answer: Answer) -> None:
        answer.headers["Content-Length"] = ""

    server.faults = [endless]
    with pytest.raises(EnvironmentUnfit, match="does not state the file's length"):
        bring(wanted(server, tmp_path, known=False))
    assert names(tmp_path) == []
    server.faults = [endless]
    bring(wanted(server, tmp_path))
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


def test_a_part_that_points_elsewhere_is_not_written_through(server: FaultyServer, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file.zip.part").symlink_to(precious)
    bring(wanted(server, tmp_path / "data"))
    assert precious.read_bytes() == b"mine"
    assert (tmp_path / "data" / "file.zip").read_bytes() == CONTENT


def test_a_record_of_a_part_that_cannot_be_read(server: FaultyServer, tmp_path: Path) -> None:
    (tmp_path / "file.zip.part").write_bytes(CONTENT[:1000])
    (tmp_path / "file.zip.part.json").write_text("[]")
    bring(wanted(server, tmp_path))
    assert server.asked_ranges() == ["bytes=1000-"]
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


# Only POSIX limits make a write fail halfway without filling a real disk; CI runs on Linux, where it is tested.
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on a file's size to meet a full disk with")
@pytest.mark.parametrize("known", [True, False])
def test_a_full_disk_keeps_the_part(server: FaultyServer, tmp_path: Path, known: bool) -> None:
    """A limit on a file's size, met as a full disk is: first a short write, then an error."""
    program = (
        "import resource, signal, sys, threading\n"
        "from pathlib import Path\n"
        "from ragcun_cli.data.fetch.sources import RetryPolicy\n"
        "from ragcun_cli.data.fetch.transfer import DownloadTask, transfer\n"
        "from ragcun_cli.errors import EnvironmentUnfit\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "url, folder, size, digest = sys.argv[1:]\n"
        "wish = DownloadTask(Path(folder) / 'file.zip', url, int(size) or None, digest or None)\n"
        "try:\n"
        "    transfer(wish, RetryPolicy(), threading.Event(), lambda here, whole: None)\n"
        "except EnvironmentUnfit as error:\n"
        "    print(error.message)\n"
    )
    arguments = [str(len(CONTENT)), md5(CONTENT)] if known else ["0", ""]
    done = subprocess.run(
        [sys.executable, "-c", program, f"{server.url}/file.zip", str(tmp_path), *arguments],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "the disk is full" in done.stdout
    assert names(tmp_path) == ["file.zip.part", "file.zip.part.json"]
    assert (tmp_path / "file.zip.part").stat().st_size == 200_000
    bring(wanted(server, tmp_path, known))
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
