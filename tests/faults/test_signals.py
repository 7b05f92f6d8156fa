"""Two workers and whoever started them, stopped and killed in every way; the run goes on as if it had not been."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from tests.faults.train_process import TrainCommand, assert_same_run, status

pytestmark = pytest.mark.processes

SHORT = ["epochs=10", "max_steps=null", "save_every=2", "eval_every=30", "log_every=1", "learn_temperature=true"]
TWO = ("--processes", "2")


@pytest.fixture(scope="module")
def recipe(tiny_bert: Path, triples_file: Path, dev_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("signals") / "small.yaml"
    path.write_text(
        f"base_model: {tiny_bert}\noutput_dim: 24\nmax_length: 64\nlambda_isotropy: 1\nlambda_reg: 0.1\n"
        "isotropy_options: {slices: 64}\nbatch_size: 8\nwarmup_steps: 2\nbase_learning_rate: 1e-3\n"
        f"gradient_accumulation_steps: 2\ndata: {{train: {triples_file}, dev: {dev_folder}}}\n"
    )
    return path


@pytest.fixture(scope="module")
def uninterrupted(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 50 steps on two processes that nobody stops; one for all processes of pytest."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    output = shared / "uninterrupted"
    with FileLock(shared / "uninterrupted.lock"):
        if not (output / "final_model").is_dir():
            code, said = TrainCommand(recipe, output, *TWO, settings=SHORT).finish()
            assert code == 0, said
    return output


@pytest.mark.parametrize(
    ("who", "sent", "reason", "goes_on"),
    [
        ("launcher", signal.SIGINT, "Ctrl-C", False),
        ("rank 1", signal.SIGTERM, "SIGTERM", True),
        ("agent", signal.SIGKILL, "SIGHUP: the terminal, or the process that started it, is gone", True),
    ],
)
def test_what_asks_to_stop_saves_first(
    recipe: Path, uninterrupted: Path, tmp_path: Path, who: str, sent: signal.Signals, reason: str, goes_on: bool
) -> None:

    run = TrainCommand(recipe, tmp_path / "run", *TWO, settings=SHORT)

    run.wait_for_step(4)
    worker = run.workers()[1]
    pid = {"launcher": run.process.pid, "agent": worker.ppid(), "rank 1": worker.pid}[who]
    os.kill(pid, sent)
    code, said = run.finish()
    assert code == 75, said
    assert "Traceback" not in said
    how = status(run.output)
    assert (how["state"], how["exit_code"], how["exit_reason"]) == ("interrupted", 75, reason)
    assert run.checkpoints()[-1] == f"step-{how['step']:08}"
    if not goes_on:
        return  # from a checkpoint like any other
    code, said = TrainCommand(recipe, run.output, *TWO, "--resume", settings=SHORT).finish()
    assert code == 0, said
    assert f"resumed at step {how['step']}" in said
    assert_same_run(uninterrupted, run.output)


def test_a_worker_that_is_killed_is_named_and_the_run_goes_on(
    recipe: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    run = TrainCommand(recipe, tmp_path / "run", *TWO, settings=SHORT)
    run.wait_for_step(4)
    run.workers()[1].kill()
    code, said = run.finish()
    assert code == 1
    assert "worker 1 was killed by SIGKILL" in said
    assert "Traceback" not in said
    assert status(run.output)["state"] == "failed"
    assert TrainCommand(recipe, run.output, *TWO, "--resume", settings=SHORT).finish()[0] == 0
    assert_same_run(uninterrupted, run.output)


def test_a_second_ctrl_c_stops_at_once_and_leaves_nobody_behind(recipe: Path, tmp_path: Path) -> None:
    run = TrainCommand(recipe, tmp_path / "run", *TWO)
    run.wait_for_step(2)
    workers = run.workers()
    for worker in workers:
        worker.suspend()  # as in a collective that hangs: they cannot answer
    run.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    run.process.send_signal(signal.SIGINT)
    code, said = run.finish()
    assert code == 130, said
    assert "again to stop at once" in said
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)


def test_nobody_outlives_a_launcher_that_is_killed(recipe: Path, tmp_path: Path) -> None:
    run = TrainCommand(recipe, tmp_path / "run", *TWO)
    run.wait_for_step(2)
    workers = run.workers()
    run.process.kill()
    run.process.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    assert status(run.output)["state"] == "interrupted"


def test_a_machine_that_waits_for_others_ends_at_once(recipe: Path, tmp_path: Path) -> None:
    from tests.distributed.processes import free_port

    place = ("--nodes", "2", "--processes", "1", "--node-rank", "0", "--master", f"127.0.0.1:{free_port()}")
    run = TrainCommand(recipe, tmp_path / "run", *place)
    run.wait_for(lambda: psutil.Process(run.process.pid).children())
    time.sleep(3)  # until it waits
    started = time.monotonic()
    run.process.send_signal(signal.SIGINT)
    code, said = run.finish()
    assert code == 75, said
    assert time.monotonic() - started < 20
    assert "2 machines to meet at 127.0.0.1" in said
    assert "stopped before any step was trained" in said


def test_two_machines_train_as_one_with_two_processes(recipe: Path, uninterrupted: Path, tmp_path: Path) -> None:
    """Two agents on this machine's loopback, fixed and elastic; only the first has the run's folder."""
    from tests.distributed.processes import free_port

    for place in (["--master", f"127.0.0.1:{free_port()}"], ["--rendezvous", f"127.0.0.1:{free_port()}"]):
        common = ["--nodes", "2", "--processes", "1", *place]
        ranks = [["--node-rank", "0"], ["--node-rank", "1"]] if place[0] == "--master" else [[], []]
        outputs = [tmp_path / place[0] / "run", tmp_path / place[0] / "elsewhere"]
        if place[0] == "--rendezvous":
            outputs[1] = outputs[0]  # whoever becomes the first writes
        runs = [
            TrainCommand(recipe, output, *common, *rank, settings=SHORT)
            for output, rank in zip(outputs, ranks, strict=True)
        ]
        assert [run.finish()[0] for run in runs] == [0, 0]
        assert_same_run(uninterrupted, outputs[0])
        assert outputs[1] == outputs[0] or not outputs[1].exists()


def test_when_a_machine_is_lost_the_others_go_on(recipe: Path, tmp_path: Path) -> None:
    from tests.distributed.processes import free_port

    place = ("--nodes", "1:2", "--processes", "1", "--rendezvous", f"127.0.0.1:{free_port()}")
    first = TrainCommand(recipe, tmp_path / "run", *place)
    time.sleep(2)  # the meeting point is the first one's
    second = TrainCommand(recipe, tmp_path / "run", *place)
    first.wait_for_step(10)
    second.kill_tree()
    reached = int(first.checkpoints()[-1].removeprefix("step-"))
    first.wait_for_step(reached + 20)
    first.process.send_signal(signal.SIGTERM)
    code, text = first.finish()
    assert code == 75, text
    assert status(first.output)["exit_reason"] == "SIGTERM"
    assert "resumed at step" in text
    assert "processes: 2 before, 1 now" in text
