"""What the flags of several processes and machines mean, and which contradict each other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ragcun_cli.errors import EnvironmentUnfit, UsageError
from ragcun_cli.train import launch
from ragcun_cli.train.launch import Placement, agent_command, plan_placement
from ragcun_cli.train.outcome import WorkerOutcome, count_attempt, read_outcomes, summary_of
from ragcun_cli.train.world import World
from tests.conftest import RunCommand


def plan(**flags: object) -> Placement:
    given = {"processes": None, "nodes": "1", "node_rank": None, "master": None, "rendezvous": None, "gpus": 0}
    return plan_placement(**{**given, **flags})


def test_one_process_for_each_gpu() -> None:
    assert plan(gpus=8).processes == 8
    assert plan(gpus=8, processes=2).processes == 2
    assert plan().is_single
    assert plan(gpus=1).is_single
    assert not plan(processes=2).is_single  # on a CPU
    assert not plan(nodes="2", node_rank=1, master="a:1").is_single
    with pytest.raises(EnvironmentUnfit, match="this machine has 4 GPUs"):
        plan(gpus=4, processes=5)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"nodes": "2"}, "give --node-rank R and --master"),
        ({"nodes": "2", "node_rank": 0}, "give --node-rank R and --master"),
        ({"nodes": "2", "node_rank": 2, "master": "h:1"}, "machines are numbered 0 to 1"),
        ({"nodes": "2", "node_rank": 0, "master": "h"}, "expected HOST:PORT"),
        ({"nodes": "2", "node_rank": 0, "master": "h:99999"}, "expected HOST:PORT"),
        ({"nodes": "1:2", "node_rank": 0, "master": "h:1"}, "needs --rendezvous"),
        ({"nodes": "2", "rendezvous": "h:1", "master": "h:1"}, "cannot be combined"),
        ({"nodes": "two"}, "expected a number of machines"),
        ({"nodes": "0"}, "expected a number of machines"),
        ({"nodes": "3:2"}, "expected a number of machines"),
        ({"nodes": "2", "rendezvous": "h:1", "overwrite": True}, "--overwrite and --rendezvous cannot be combined"),
        ({"master": "h:1"}, "are for several machines"),
        ({"node_rank": 0}, "are for several machines"),
    ],
)
def test_flags_that_contradict_each_other(flags: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        plan(**flags)


def test_the_commands_of_torch() -> None:
    start = [sys.executable, "-m", "ragcun_cli.train.agent", "--nproc-per-node=4"]
    end = ["-m", "ragcun_cli.train.worker", "job.json"]
    job = Path("job.json")
    assert agent_command(Placement(4), "run", job) == [*start, "--standalone", *end]
    fixed = Placement(4, "2", 1, "[fd00::1]:29500")
    assert agent_command(fixed, "run", job) == [
        *start, "--nnodes=2", "--node-rank=1", "--master-addr=fd00::1", "--master-port=29500", *end,
    ]  # fmt: skip
    loopback = agent_command(Placement(4, "1:3", rendezvous="127.0.0.1:29500"), "run", job)
    assert "--rdzv-endpoint=127.0.0.1:29500" in loopback
    assert not any(each.startswith("--local-addr") for each in loopback)


def test_a_meeting_point_elsewhere_is_not_taken_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else both sides wait for a minute and give up: torch gives the others a host name that may be their loopback."""
    monkeypatch.setattr(launch, "_own_address_towards", lambda _: "10.99.0.2")
    away = agent_command(Placement(1, "2", rendezvous="10.99.0.1:29500"), "run", Path("job.json"))
    assert {"--local-addr=10.99.0.2", "--rdzv-conf=is_host=false"} <= set(away)
    here = agent_command(Placement(1, "2", rendezvous="10.99.0.2:29500"), "run", Path("job.json"))
    assert {"--local-addr=10.99.0.2", "--rdzv-conf=is_host=true"} <= set(here)


def test_outcomes_of_the_last_group_count(tmp_path: Path) -> None:
    summary = {"name": "a", "folder": "f", "model": "m", "steps": 3, "best_step": None, "best_dev_ndcg": None}
    assert [count_attempt(tmp_path, rank) for rank in (0, 1)] == [0, 0]
    WorkerOutcome.of_error(0, 1, UsageError("lost", "a machine")).write(tmp_path)
    assert summary_of(read_outcomes(tmp_path)) is None
    error = read_outcomes(tmp_path)[0].error()
    assert isinstance(error, UsageError)
    assert (error.message, error.hint) == ("lost", "a machine")
    assert count_attempt(tmp_path, 0) == 1  # a machine was lost, and the group made anew
    assert read_outcomes(tmp_path) == []
    WorkerOutcome(1, 0, summary).write(tmp_path)
    found = summary_of(read_outcomes(tmp_path))
    assert found is not None
    assert found.steps == 3
    (tmp_path / "outcome-00001-00001.json").write_text("{")  # half-written
    assert len(read_outcomes(tmp_path)) == 1


def test_shares_of_a_batch_are_even_and_whole() -> None:
    import numpy as np

    lengths = np.random.default_rng(0).integers(3, 400, 96)
    shares = [World(rank, 8).share(lengths) for rank in range(8)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(96))
    tokens = [int(lengths[share].sum()) for share in shares]
    assert max(tokens) - min(tokens) <= int(lengths.max())


def test_a_batch_for_fewer_processes_than_there_are(ragcun: RunCommand, small_recipe: Path, tmp_path: Path) -> None:
    """An error that all workers meet is said once, with its exit code."""
    finished = ragcun("train", "-r", small_recipe, "--set", "batch_size=2", "--processes", "3", "--json")
    assert finished.exit_code == 2
    assert json.loads(finished.stdout)["error"] == "batch_size: 2 triples cannot be split over 3 processes"
    assert not (tmp_path / "run").exists()


def test_several_runs_do_not_share_machines(ragcun: RunCommand, small_recipe: Path) -> None:
    finished = ragcun("train", "-r", small_recipe, "--seeds", "0,1", "--nodes", "2")
    assert finished.exit_code == 2
    assert "Name one recipe and one seed" in finished.stderr


def test_only_launches_that_are_over_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another container that shares /tmp has process ids of its own."""
    monkeypatch.setattr(launch.tempfile, "gettempdir", lambda: str(tmp_path))
    over, held, file = (tmp_path / f"{launch.LAUNCH_PREFIX}{name}" for name in ("1-a", "99999999-b", "1-c"))
    over.mkdir()
    held.mkdir()
    file.symlink_to(tmp_path)
    code = (
        "import fcntl, os, sys\n"
        "fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(held)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        launch._sweep_launches()
        assert (over.exists(), held.exists(), file.is_symlink()) == (False, True, True)
        other.communicate("")
    launch._sweep_launches()
    assert not held.exists()
