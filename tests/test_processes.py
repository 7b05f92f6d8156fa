"""A child and all that it starts can be watched and ended, also where the child has ended before them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ragcun_cli import processes
from ragcun_cli.errors import UsageError
from ragcun_cli.processes import ERROR_FILE, Child, read_error, write_error

SLEEP = "import time; time.sleep(600)"
# Starts a grandchild, writes its number, and ends or sleeps.
WITH_GRANDCHILD = (
    "import subprocess, sys, time;"
    "grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "print(grandchild.pid, flush=True); time.sleep(float(sys.argv[1]))"
)


def started(tmp_path: Path, *arguments: str) -> Child:
    with (tmp_path / "out").open("wb") as output, (tmp_path / "errors").open("wb") as errors:
        return Child([sys.executable, "-c", *arguments], {"GIVEN": "1"}, output, errors)


def grandchild_of(tmp_path: Path) -> psutil.Process:
    deadline = time.monotonic() + 20
    while not (said := (tmp_path / "out").read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return psutil.Process(int(said))


def assert_gone(process: psutil.Process) -> None:
    psutil.wait_procs([process], timeout=10)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_streams_environment_and_session_are_its_own(tmp_path: Path) -> None:
    program = "import os, sys; print(os.environ['GIVEN'], os.getsid(0) == os.getpid()); print('said', file=sys.stderr)"
    child = started(tmp_path, program)
    assert child.wait(20) == 0
    assert (tmp_path / "out").read_text() == "1 True\n"
    assert (tmp_path / "errors").read_text() == "said\n"


def test_a_wait_ends_with_its_seconds(tmp_path: Path) -> None:
    with started(tmp_path, SLEEP) as child:
        assert (child.poll(), child.wait(0.05)) == (None, None)
    assert child.poll() == -signal.SIGKILL  # the block has killed it


def test_a_signal_reaches_it_and_one_to_a_process_that_has_ended_is_no_error(tmp_path: Path) -> None:
    child = started(tmp_path, SLEEP)
    child.send(signal.SIGTERM)
    assert child.wait(20) == -signal.SIGTERM
    child.send(signal.SIGTERM)
    assert child.kill() == -signal.SIGTERM


def test_killing_takes_what_it_started(tmp_path: Path) -> None:
    child = started(tmp_path, WITH_GRANDCHILD, "600")
    grandchild = grandchild_of(tmp_path)
    assert grandchild in child.descendants()
    child.kill()
    assert_gone(grandchild)


def test_what_it_had_started_is_ended_also_after_its_own_end(tmp_path: Path) -> None:
    child = started(tmp_path, WITH_GRANDCHILD, "1")
    grandchild = grandchild_of(tmp_path)
    child.descendants()  # as those who watch it ask now and then
    assert child.wait(20) == 0
    assert child.descendants() == [grandchild]
    child.kill()
    assert_gone(grandchild)


def test_what_follows_a_parents_end(tmp_path: Path) -> None:
    """A process starts another that writes a file when its parent is gone, and ends."""
    action = f"open({str(tmp_path / 'noticed')!r}, 'w').close()"
    watching = (
        "import os, time; from ragcun_cli import processes; processes.POLL_SECONDS = 0.02;"
        f"processes.when_parent_ends(os.getppid(), lambda: {action}); print('ready', flush=True); time.sleep(5)"
    )
    parent = (
        "import subprocess, sys;"
        f"child = subprocess.Popen([sys.executable, '-c', {watching!r}], stdout=subprocess.PIPE);"
        "child.stdout.readline()"
    )
    subprocess.run([sys.executable, "-c", parent], check=True, timeout=30)
    deadline = time.monotonic() + 10
    while not (tmp_path / "noticed").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_parent_that_lives_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "POLL_SECONDS", 0.01)
    ended: list[bool] = []
    processes.when_parent_ends(os.getppid(), lambda: ended.append(True))
    time.sleep(0.1)
    assert ended == []


def test_an_error_is_told_to_who_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ERROR_FILE, raising=False)
    write_error(UsageError("what", "cure"))  # nobody asked
    monkeypatch.setenv(ERROR_FILE, str(tmp_path / "error"))
    write_error(UsageError("what is\nwrong", "The cure."))
    assert read_error(tmp_path / "error") == "what is wrong The cure."
    assert read_error(tmp_path / "none") == ""
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    assert read_error(tmp_path / "bytes") == ""
