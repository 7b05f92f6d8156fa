"""An account of AWS in this process, and a checkout to launch."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragcun_cli.aws import calls, runs, transient, watch
from ragcun_cli.aws.record import RunRecord
from ragcun_cli.aws.resources import machines, network
from tests.aws.cloud import ACCOUNT, HOME, Cloud, make_boundary
from tests.aws.every_command import BUCKET
from tests.conftest import RunCommand

CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@pytest.fixture(autouse=True)
def no_account_of_yours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test may reach a real account, whatever is configured here."""
    for name in CREDENTIALS:
        monkeypatch.setenv(name, "testing")
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, seconds in (
        (machines, "SECONDS_BETWEEN_TRIES", 0.01),
        (machines, "SECONDS_TO_APPEAR", 0.02),
        (transient, "SECONDS_TO_SETTLE", 0.05),
        (transient, "FIRST_PAUSE", 0.01),
        (machines, "POLL_SECONDS", 0.01),
        (machines, "SECONDS_TO_END", 0.1),
        (runs, "SECONDS_TO_SHOW", 0.0),
        (watch, "SECONDS_TO_SHUT_DOWN", 0.05),
        (network, "SECONDS_BETWEEN_TRIES", 0.01),
        (network, "SECONDS_FOR_A_GROUP", 0.05),
    ):
        monkeypatch.setattr(module, name, seconds)


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    from moto import mock_aws

    with mock_aws():
        make_boundary()
        yield Cloud()


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small git checkout that passes for one of ragcun's."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "ragcun_cli/main.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"{name}\n")
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    """Everything there, as one commit."""
    run = ["git", "-C", str(folder), "-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run([*run, "init", "-q"], check=True)
    subprocess.run([*run, "add", "-A"], check=True)
    subprocess.run([*run, "commit", "-qm", "test"], check=True)


@pytest.fixture
def account(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """The test's account is what `ragcun aws` finds."""
    monkeypatch.setattr(calls, "open_session", lambda profile: cloud.aws().session)
    monkeypatch.setattr(calls, "Aws", lambda session: cloud.aws())
    return cloud


@pytest.fixture
def launch(account: Cloud, checkout: Path, ragcun: RunCommand) -> list[str | Path]:
    return ["aws", "launch", "--instance", "g5.xlarge", "--recipe", "isotropy", "--code", checkout, "--yes"]


@pytest.fixture
def record(account: Cloud) -> RunRecord:
    return RunRecord(account.aws(), ACCOUNT, BUCKET, HOME, "isotropy")


@pytest.fixture
def launched(
    launch: list[str | Path], ragcun: RunCommand, record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> RunRecord:
    """A run with one machine; `watch` does not pause."""
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(watch, "MINUTES_WITHOUT_CAPACITY", 0.0001)
    assert ragcun(*launch).exit_code == 0
    return record
