"""What asks a run to stop without a signal: EC2's spot notice, and the end of --max-time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragcun_cli import spot
from ragcun_cli.errors import Interrupted
from ragcun_cli.spot import MetadataService, SpotWatcher, metadata_address
from ragcun_cli.train import loop
from ragcun_cli.train.arm import train_arm
from tests.conftest import RunCommand
from tests.faults.metadata_service import MetadataServer
from tests.faults.train_process import assert_same_run, status
from tests.training_runs import load

pytestmark = pytest.mark.processes


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetadataServer]:
    with MetadataServer() as server:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.address)
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # must not be asked
        monkeypatch.setattr(spot, "POLL_SECONDS", 0.02)
        yield server
        server.shutdown()


def test_the_service_is_read_with_a_token_that_is_renewed(service: MetadataServer) -> None:
    reader = MetadataService(service.address)
    assert reader.read(spot.NOTICE) is None
    service.expired = True
    service.notice = True
    assert "terminate" in str(reader.read(spot.NOTICE))
    assert service.tokens == 2


def test_elsewhere_nobody_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", raising=False)
    monkeypatch.setattr(spot, "MARKS", {tmp_path / "sys_vendor": "amazon ec2"})
    assert metadata_address() is None
    (tmp_path / "sys_vendor").write_text("Amazon EC2\n")
    assert metadata_address() == spot.ADDRESS
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert metadata_address() is None


def test_a_service_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spot, "POLL_SECONDS", 0.02)
    heard: list[str] = []
    with MetadataServer() as server:
        address = server.address
        server.shutdown()
    watcher = SpotWatcher(address, heard.append)
    watcher.start()
    time.sleep(0.1)
    assert not heard
    watcher.stop()


def test_a_spot_notice_saves_and_the_run_goes_on(
    small_recipe: Path, tmp_path: Path, service: MetadataServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load(small_recipe, "epochs=10", "max_steps=null", f"output_dir='{tmp_path / 'whole'}'")
    train_arm(whole)
    real = loop.optimiser_step

    def with_notice(training: object, *rest: object) -> object:
        if training.progress.step >= 7:
            service.notice = True
            time.sleep(0.05)
        return real(training, *rest)

    stopped = load(small_recipe, "epochs=10", "max_steps=null", f"output_dir='{tmp_path / 'stopped'}'")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "optimiser_step", with_notice)
        with pytest.raises(Interrupted, match="EC2 is reclaiming this spot instance"):
            train_arm(stopped)
    assert status(tmp_path / "stopped")["exit_code"] == 75
    assert 8 <= status(tmp_path / "stopped")["step"] < 20
    service.notice = False
    train_arm(stopped, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_when_the_time_is_up_the_run_saves(ragcun: RunCommand, small_recipe: Path, tmp_path: Path) -> None:
    settings = ["--set", "epochs=4000", "--set", "max_steps=null", "--set", f"output_dir='{tmp_path / 'run'}'"]
    started = time.monotonic()
    finished = ragcun("train", "-r", small_recipe, *settings, "--max-time", "3s")
    assert finished.exit_code == 75, finished.stderr
    assert time.monotonic() - started < 60
    assert "the time given by --max-time is up" in " ".join(finished.stderr.replace("│", " ").split())
    assert status(tmp_path / "run")["state"] == "interrupted"


@pytest.mark.parametrize("text", ["soon", "", "0m", "5", "-3h", "1h1h"])
def test_a_time_that_is_none(ragcun: RunCommand, small_recipe: Path, text: str) -> None:
    finished = ragcun("train", "-r", small_recipe, "--max-time", text)
    assert finished.exit_code == 2
    assert "not a duration" in finished.stderr


def test_a_stop_during_the_dev_score_leaves_it_for_later(
    small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dev set may take longer than the two minutes that EC2 gives."""
    from ragcun_cli.train.stopping import Reason

    whole = load(small_recipe, f"output_dir='{tmp_path / 'whole'}'")
    train_arm(whole)
    real = loop.encode_together

    def asking(encode: object, world: object, stop: object, device: object) -> object:
        stop.request(Reason.SPOT_NOTICE)
        return real(encode, world, stop, device)

    stopped = load(small_recipe, f"output_dir='{tmp_path / 'stopped'}'")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "encode_together", asking)
        with pytest.raises(Interrupted):
            train_arm(stopped)
    assert status(tmp_path / "stopped")["step"] == 5
    assert not any("dev" in line for line in (tmp_path / "stopped" / "metrics.jsonl").read_text().splitlines())
    train_arm(stopped, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
