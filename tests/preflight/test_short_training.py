"""The short training: really trained, killed, gone on with and scored; interrupted anywhere it leaves nothing."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ragcun_cli.preflight import running, short_training
from ragcun_cli.preflight.checks import FAILED, OK
from ragcun_cli.preflight.short_training import try_training
from ragcun_cli.recipe.loading import load_recipe
from tests.conftest import REPOSITORY, RunCommand

pytestmark = pytest.mark.processes

PARTS = ("memory", "steps", "checkpoint", "kill and resume", "evaluation")


def test_a_recipe_is_tried_killed_resumed_and_scored(
    ragcun: RunCommand, small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    done = ragcun("preflight", "--recipe", small_recipe, "--json", "--dollars-per-hour", "3.6")
    report = json.loads(done.stdout)
    checks = {check["name"]: check for check in report["checks"]}
    assert done.exit_code == 0, [check for check in report["checks"] if check["status"] == FAILED]
    assert [checks[f"small: {part}"]["status"] for part in PARTS] == [OK] * len(PARTS)
    assert "is processed at once" in checks["small: memory"]["seen"]
    assert "to the last bit" in checks["small: kill and resume"]["seen"]
    assert "100 passages" in checks["small: evaluation"]["seen"]
    assert checks["room for the runs"]["status"] == OK
    here = report["estimates"]["small"]["here"]
    assert here["dollars"] == pytest.approx(here["seconds"] / 1000)
    assert set(here["parts"]) == {"start", "training", "dev scores", "saving"}
    assert here["memory_bytes"] > here["disk_bytes"] > 0
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_loss_that_does_not_fall_is_a_failure() -> None:
    found = short_training._Findings("arm")
    trial = {
        "longest_tokens": 9,
        "chunk": 5,
        "peak_bytes": 1 << 30,
        "batch": 8,
        "seconds": 1.0,
        "chunk_explained": "found by trial",
    }
    recipe = load_recipe("isotropy")
    for losses in ((1.0, 0.9), (1.0, 1.1), (1.0, float("nan")), (0.0, 0.0), (-2.0, -1.0)):
        short_training._judge_trial(recipe, {**trial, "losses": losses}, found)
    steps = [check for check in found.checks if check.name == "arm: steps"]
    assert [check.status for check in steps] == [OK, FAILED, FAILED, OK, FAILED]
    assert "sampled: 8 of 16 triples" in steps[0].seen
    assert "the loss does not fall" in steps[1].seen
    assert "is processed 5 tokens at a time" in found.checks[0].seen


def test_what_a_training_dies_of_is_the_checks_finding(small_recipe: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(small_recipe), [f"data.train={tmp_path}/nothing.jsonl"])
    tried = try_training(recipe, new(tmp_path / "scratch"), time.monotonic() + 120)
    assert [(check.name, check.status) for check in tried.checks] == [("small: steps", FAILED)]
    assert "no such file" in tried.checks[0].seen
    assert tried.trial is None


def test_what_takes_too_long_to_be_tried_is_a_failure_with_its_cure(small_recipe: Path, tmp_path: Path) -> None:
    tried = try_training(load_recipe(str(small_recipe)), new(tmp_path / "scratch"), time.monotonic() + 0.5)
    assert [(check.name, check.status) for check in tried.checks] == [("small: steps", FAILED)]
    assert "fewer recipes at a time" in tried.checks[0].cure


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_leaves_nothing(small_recipe: Path, tmp_path: Path, number: int, code: int) -> None:
    folder = new(tmp_path / "here")
    command = [sys.executable, "-m", "ragcun_cli", "preflight", "--recipe", str(small_recipe)]
    command += ["--set", f"output_dir={folder}/checkpoints/small"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    own = psutil.Process(process.pid)
    deadline = time.monotonic() + 120
    while not list(folder.glob(f"{running.SCRATCH}*/small/recipe.yaml")) or not own.children():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = own.children(recursive=True)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    assert list(folder.iterdir()) == []
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_what_a_killed_preflight_left_is_removed_by_the_next(tmp_path: Path) -> None:
    gone = new(tmp_path / f"{running.SCRATCH}{platform.node()}-999999-abc")
    others = new(tmp_path / f"{running.SCRATCH}old")
    with running._scratch(tmp_path / "checkpoints" / "arm") as folder:
        assert not gone.exists()
        assert folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == [others]


def new(folder: Path) -> Path:
    folder.mkdir()
    return folder
