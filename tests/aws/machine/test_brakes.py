"""What ends a machine, and after how long: every row of the table of failures in AWS_SETUP.md."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ragcun_cli.aws.machine import brakes, stages, supervisor
from ragcun_cli.aws.machine.brakes import Brakes, Ending, GpuGauge, gpu_use, newest_in
from ragcun_cli.aws.machine.nodes import Place
from ragcun_cli.aws.machine.stages import Command, Stage, stages_of
from ragcun_cli.aws.machine.supervisor import run_stage
from ragcun_cli.aws.record import RunRecord
from tests.aws.machine.contexts import context_of
from tests.faults.metadata_service import MetadataServer

TRAINING = Stage("training", lambda folder: [], uses_gpus=True)


def brakes_with(**changes: Any) -> Brakes:
    usual = Brakes(time.time() + 7200, idle_minutes=1.0, gpus=1, address=None, use=lambda: 50.0, written=time.time)
    return replace(usual, **changes)


def python(code: str, output: Path | None = None, may_fail: bool = False) -> Command:
    return Command((sys.executable, "-c", code), output, may_fail)


@pytest.mark.parametrize(
    ("use", "gpus", "stage", "ends"),
    [
        (0.0, 1, TRAINING, True),
        (4.9, 8, TRAINING, True),
        (5.0, 8, TRAINING, False),
        (None, 1, TRAINING, True),  # a driver that tells nothing
        (None, 0, TRAINING, False),  # a machine without GPUs
        (0.0, 1, Stage("downloading", lambda folder: []), False),
    ],
)
def test_idle_gpus_end_the_run(use: float | None, gpus: int, stage: Stage, ends: bool) -> None:
    looked = brakes_with(use=lambda: use, gpus=gpus)
    looked.busy -= 59
    assert looked.reason(stage, 0.0) is None
    looked.busy -= 2 if ends else 0
    expected = Ending("idle", 75, "the GPUs were idle for 1 minutes") if ends else None
    assert looked.reason(stage, 0.0) == expected


def test_a_busy_moment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    use = [0.0]
    looked = brakes_with(use=lambda: use[0])
    looked.busy -= 59
    use[0] = 97.0
    assert looked.reason(TRAINING, 0.0) is None
    use[0] = 0.0
    looked.busy -= 59
    assert looked.reason(TRAINING, 0.0) is None


def test_the_end_of_max_hours_leaves_time_to_save() -> None:
    assert brakes_with(end=time.time() + 610).reason(TRAINING, 0.0) is None
    ending = brakes_with(end=time.time() + 590).reason(TRAINING, 0.0)
    assert ending == Ending("out-of-time", 75, "--max-hours is nearly over")
    assert supervisor.SECONDS_TO_STOP < brakes.SECONDS_TO_SAVE - 60  # the last upload has time too


def test_each_stage_has_its_own_longest_time(record: RunRecord, work: Path) -> None:
    found = {stage.name: stage for stage in stages_of(context_of(record, work), None)}
    assert list(found) == ["fetching", "preflight", "downloading", "trying", "training", "evaluating", "reporting"]
    for stage in found.values():
        assert stage.longest is not None or (stage.uses_gpus and stage.longest_silence == 3600), stage.name
    slow = found["downloading"]
    assert brakes_with().reason(slow, 3 * 3600) is None
    ending = brakes_with().reason(slow, 3 * 3600 + 1)
    assert ending == Ending("failed", None, "downloading took longer than 180 minutes")


def test_gpus_that_wait_for_one_another_look_busy_but_write_nothing(work: Path) -> None:
    training = Stage("training", lambda folder: [], longest_silence=60.0, uses_gpus=True)
    silent = brakes_with(written=lambda: time.time() - 61)
    assert silent.reason(training, 59.0) is None  # what was written before the stage counts for nothing
    assert silent.reason(training, 61.0) == Ending("failed", None, "training has written nothing for 1 minutes")
    assert brakes_with(written=lambda: time.time() - 59).reason(training, 61.0) is None


def test_the_newest_of_logs_metrics_results_and_embeddings_counts(work: Path) -> None:
    assert newest_in(work / "nothing") == 0.0
    for number, name in enumerate(
        ("logs/1-i-1.log", "checkpoints/a.log", "checkpoints/isotropy/metrics.jsonl", "results/isotropy/x.json",
         "cache/embeddings/model/block"), start=1,
    ):  # fmt: skip
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        os.utime(path, (2e9 + number, 2e9 + number))
        assert newest_in(work) == 2e9 + number
    (work / "logs/broken").symlink_to(work / "nowhere")
    assert newest_in(work) == 2e9 + 5


def test_a_machine_that_only_downloads_keeps_what_it_gets(record: RunRecord, work: Path) -> None:
    context = context_of(record, work, recipes={}, downloads=("scifact",))
    found = stages_of(context, None)
    assert [stage.name for stage in found] == ["fetching", "downloading", "staging"]
    assert all(stage.longest is not None for stage in found)


def test_a_spot_notice_ends_whatever_runs(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "POLL_SECONDS", 0.05)
    service = MetadataServer()
    saved = work / "saved"
    code = (
        "import signal, sys, time, pathlib\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(saved)!r}).write_text('x'), sys.exit(75)))\n"
        f"pathlib.Path({str(work / 'ready')!r}).write_text('x')\n"
        "time.sleep(60)\n"
    )
    stage = Stage("training", lambda folder: [python(code)], uses_gpus=True)
    found: list[Ending | None] = []
    thread = threading.Thread(target=lambda: found.append(run_stage(stage, work, brakes_with(address=service.address))))
    thread.start()
    while not (work / "ready").exists():
        time.sleep(0.02)
    service.notice = True
    thread.join(20)
    (ending,) = found
    assert ending is not None
    assert (ending.state, ending.exit_code) == ("interrupted", 75)
    assert ending.reason.startswith("EC2 is reclaiming this machine: {")
    assert saved.exists()


def test_what_does_not_end_when_asked_is_killed(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(supervisor, "SECONDS_TO_STOP", 0.3)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    stage = Stage("downloading", lambda folder: [python(code)], longest=0.5)
    began = time.monotonic()
    ending = run_stage(stage, work, brakes_with())
    assert ending == Ending("failed", None, "downloading took longer than 0.00833333 minutes")
    assert time.monotonic() - began < 10


def test_an_nvidia_smi_that_hangs_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """In D state not even SIGKILL ends it, and subprocess.run waits for it for ever."""
    hang = threading.Event()

    def read() -> float | None:
        hang.wait(30)
        return 50.0

    monkeypatch.setattr(brakes, "OLDEST_READING", 0.1)
    gauge = GpuGauge(read)
    began = time.monotonic()
    time.sleep(0.15)
    assert gauge.use() is None
    looked = brakes_with(use=gauge.use)
    looked.busy -= 61
    ending = looked.reason(TRAINING, 0.0)
    assert ending is not None
    assert ending.state == "idle"
    assert time.monotonic() - began < 5
    hang.set()


def test_a_reading_outlives_a_slow_nvidia_smi() -> None:
    """But not two: what is older says nothing of now."""
    assert brakes.SECONDS_TO_READ < brakes.OLDEST_READING <= 2 * brakes.SECONDS_TO_READ
    assert brakes.SECONDS_BETWEEN_READINGS < 10


def test_a_recent_reading_counts_and_an_old_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([42.0])
    gauge = GpuGauge(lambda: next(readings, 42.0))
    deadline = time.monotonic() + 5
    while gauge.use() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert gauge.use() == 42.0
    monkeypatch.setattr(brakes, "OLDEST_READING", -1.0)
    assert gauge.use() is None


@pytest.mark.parametrize(
    ("said", "expected"), [("0\\n97\\n", 97.0), ("no GPU\\n", None), ("", None), ("3\\n[N/A]\\n", None)]
)
def test_the_busiest_gpu_counts(work: Path, monkeypatch: pytest.MonkeyPatch, said: str, expected: float | None) -> None:
    program = work / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '{said}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{work}:/usr/bin:/bin")
    assert gpu_use() == expected


def test_commands_of_a_stage_go_one_after_another(work: Path) -> None:
    out = work / "report" / "table.md"
    commands = [python("print('one')", out), python("raise SystemExit(3)", work / "report" / "none", may_fail=True)]
    assert run_stage(Stage("reporting", lambda folder: commands), work, brakes_with()) is None
    assert out.read_text() == "one\n"
    assert not (work / "report" / "none").exists()
    failing = [python("raise SystemExit(7)"), python(f"open({str(work / 'never')!r}, 'w')")]
    ending = run_stage(Stage("training", lambda folder: failing), work, brakes_with())
    assert ending == Ending("failed", 7, "training ended with code 7")
    assert not (work / "never").exists()
    stopped = run_stage(Stage("training", lambda folder: [python("raise SystemExit(75)")]), work, brakes_with())
    assert stopped == Ending("interrupted", 75, "stopped during training")


def test_nodes_share_one_training_and_the_first_one_evaluates(record: RunRecord, work: Path) -> None:
    context = context_of(record, work, nodes=2)
    (work / "recipes/a.yaml").write_text("")
    (work / "recipes/b.yaml").write_text("")
    second = {stage.name: stage for stage in stages_of(context, Place(1, "10.0.0.1:29500"))}
    assert list(second) == ["fetching", "preflight", "downloading", "training"]
    commands = [each.arguments[3:] for each in second["training"].commands(work)]
    shared = ("--nodes", "2", "--node-rank", "1", "--master", "10.0.0.1:29500", "--resume")
    assert commands == [("train", "--recipe", str(work / f"recipes/{name}.yaml"), *shared) for name in "ab"]
    assert "evaluating" in {stage.name for stage in stages_of(context, Place(0, "10.0.0.1:29500"))}


def test_frozen_arms_are_scored_just_before_the_untouched_encoder(record: RunRecord, work: Path) -> None:
    """They use the same features, which a full cache might have dropped in between."""
    for name, frozen in (("frozen", "true"), ("isotropy", "false")):
        (work / "checkpoints" / name).mkdir(exist_ok=True)
        (work / "checkpoints" / name / "recipe.yaml").write_text(f"freeze_base: {frozen}\n")
    (work / "untouched").write_text("mpnet\n")
    found = {stage.name: stage for stage in stages_of(context_of(record, work), None)}
    (command,) = found["evaluating"].commands(work)
    models = [value for flag, value in zip(command.arguments, command.arguments[1:], strict=False) if flag == "--model"]
    assert [model.rsplit("/", 1)[-1] for model in models] == ["isotropy", "frozen", "mpnet"]
    limit = command.arguments[command.arguments.index("--cache-limit") + 1]
    assert limit == f"{context_of(record, work).attempt.cache_gib}GiB"


def test_an_interrupted_attempt_is_not_tried_again(record: RunRecord, work: Path) -> None:
    names = [stage.name for stage in stages_of(context_of(record, work, attempt=2), None)]
    assert "trying" not in names


def test_an_unmet_run_says_so(record: RunRecord, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(context: object) -> None:
        raise TimeoutError("1 of 2 nodes appeared within 30 minutes")

    monkeypatch.setattr(supervisor, "meet", nobody)
    context = context_of(record, work, nodes=2)
    context.log.write_text("")
    supervisor.supervise(context)
    status = record.reported().status
    assert status is not None
    assert (status.state, status.reason) == (
        "failed", "the nodes did not meet: 1 of 2 nodes appeared within 30 minutes"
    )  # fmt: skip


def test_user_data_sets_its_timer_before_anything_else_and_limits_every_wait() -> None:
    script = (Path(brakes.__file__).parent / "boot.sh").read_text()
    first, second = script.splitlines()[:2]
    assert first == "#!/bin/bash"
    assert second.startswith(
        'shutdown -h "+@MINUTES@" "ragcun: --max-hours has run out" || { (sleep $((60 * @MINUTES@))'
    )
    code = [line.strip() for line in script.splitlines() if not line.strip().startswith("#")]
    for line in code:
        if "curl " in line:
            assert "--max-time" in line, line
            assert "timeout " in line, line
        if "aws s3 " in line or "aws ec2 " in line:
            assert "timeout " in line, line
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("place", "key", "reason"),
    [
        (None, "status.json", ""),
        (Place(0, "10.0.0.1:29500"), "status.json", ""),
        (Place(1, "10.0.0.1:29500"), "nodes/1/states/i-1.json", "the first node continues"),
    ],
)
def test_a_run_is_executed_to_its_end_and_reported(
    record: RunRecord, work: Path, monkeypatch: pytest.MonkeyPatch, place: Place | None, key: str, reason: str
) -> None:
    stage = Stage("training", lambda folder: [python(f"open({str(work / 'trained')!r}, 'w')")])
    monkeypatch.setattr(supervisor, "stages_of", lambda context, place: [stage])
    monkeypatch.setattr(supervisor, "meet", lambda context: place)
    monkeypatch.setattr(supervisor, "metadata_address", lambda: None)
    context = context_of(record, work, nodes=1 if place is None else 2)
    context.log.write_text("")
    assert supervisor.supervise(context) is True
    assert (work / "trained").exists()
    said = record.read_json(key)
    assert (said["state"], said["exit_code"], said["reason"], said["stage"]) == ("finished", 0, reason, "training")
    if key != "status.json":
        assert record.read_json("status.json") is None


def test_a_stage_that_fails_ends_the_run(record: RunRecord, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [
        Stage("preflight", lambda folder: [python("raise SystemExit(4)")]),
        Stage("training", lambda folder: [python(f"open({str(work / 'trained')!r}, 'w')")]),
    ]
    monkeypatch.setattr(supervisor, "stages_of", lambda context, place: both)
    monkeypatch.setattr(supervisor, "metadata_address", lambda: None)
    context = context_of(record, work)
    context.log.write_text("")
    assert supervisor.supervise(context) is True
    said = record.read_json("status.json")
    assert (said["state"], said["exit_code"], said["stage"]) == ("failed", 4, "preflight")
    assert not (work / "trained").exists()


@pytest.mark.parametrize(("reported", "code"), [(True, 0), (False, 75), (None, 1)])
def test_boot_sh_learns_whether_the_end_was_reported(
    monkeypatch: pytest.MonkeyPatch, reported: bool | None, code: int
) -> None:
    def supervise(context: object) -> bool:
        if reported is None:
            raise RuntimeError("a bug")
        return reported

    monkeypatch.setattr(supervisor, "supervise", supervise)
    monkeypatch.setattr(supervisor.MachineContext, "read", lambda: None)
    with pytest.raises(SystemExit) as ended:
        supervisor.main()
    assert ended.value.code == code


def test_reports_go_below_the_report_folder(work: Path) -> None:
    commands = stages._reports(work)
    assert [each.output for each in commands] == [
        *(work / "report" / name for name in ("table.md", "table.tex", "table.json", "claims.txt")), None
    ]  # fmt: skip
    assert [each.may_fail for each in commands] == [False, False, False, True, True]
    assert commands[-1].arguments[-1] == str(work / "report" / "page.html")
