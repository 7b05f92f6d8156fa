"""Several runs from one command: which, where, in what order, and what one that fails does to the others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ragcun_cli.errors import UsageError
from ragcun_cli.processes import Child
from ragcun_cli.recipe.loading import load_recipe
from ragcun_cli.train import multi_run
from ragcun_cli.train.multi_run import plan_runs, train_all
from ragcun_cli.train.runs import one_per_seed
from tests.conftest import RunCommand

pytestmark = pytest.mark.processes


@pytest.fixture
def arms(small_recipe: Path, tmp_path: Path) -> list[Path]:
    """Two arms in files of their own, each with its own folder."""
    paths = []
    for name, change in (("plain", "isotropy: none"), ("even", "isotropy: covariance")):
        path = tmp_path / f"{name}.yaml"
        path.write_text(
            f"extends: {small_recipe.name}\nmax_steps: 3\n{change}\noutput_dir: {tmp_path / 'runs' / name}\n"
        )
        paths.append(path)
    return paths


def state(folder: Path) -> str:
    return str(json.loads((folder / "status.json").read_text())["state"])


def test_one_run_for_each_seed(small_recipe: Path) -> None:
    recipe = load_recipe(str(small_recipe))
    assert one_per_seed(recipe, None) == [recipe]
    runs = one_per_seed(recipe, [3, 1])
    assert [run.seed for run in runs] == [3, 1]
    assert [run.output_dir for run in runs] == [f"{recipe.output_dir}-seed3", f"{recipe.output_dir}-seed1"]
    own = load_recipe(str(small_recipe), ["seeds=[5, 6]"])
    assert [run.seed for run in one_per_seed(own, None)] == [5, 6]
    assert [run.seed for run in one_per_seed(own, [7])] == [7]  # the command line wins
    assert all(run.seeds is None for run in one_per_seed(own, None))


def test_arms_and_seeds_from_one_command(ragcun: RunCommand, arms: list[Path], tmp_path: Path) -> None:
    finished = ragcun("train", "-r", arms[0], "-r", arms[1], "--seeds", "0,1", "--json")
    assert finished.exit_code == 0, finished.stderr
    entries = json.loads(finished.stdout)
    assert [(entry["name"], entry["seed"], entry["state"]) for entry in entries] == [
        ("plain", 0, "done"), ("plain", 1, "done"), ("even", 0, "done"), ("even", 1, "done"),
    ]  # fmt: skip
    digests = {}
    for entry in entries:
        folder = Path(entry["folder"])
        assert state(folder) == "finished"
        assert "step 3/3" in Path(entry["log"]).read_text()
        environment = json.loads((folder / "environment.json").read_text())
        assert environment["command"].startswith("ragcun train -r")  # as typed, not as the run's process was started
        digests[entry["name"], entry["seed"]] = environment["model"]["initial_weights_sha256"]
    assert digests["plain", 0] == digests["even", 0] != digests["plain", 1] == digests["even", 1]
    assert "plain-seed0: done" in finished.stderr


def test_one_that_fails_stops_no_other_and_the_exit_code_says_so(
    ragcun: RunCommand, arms: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "broken.jsonl").write_text("{\n")
    broken = tmp_path / "broken.yaml"
    broken.write_text(arms[0].read_text().replace("runs/plain", "runs/broken") + "data:\n  train: broken.jsonl\n")
    broken.write_text(broken.read_text().replace("broken.jsonl", str(tmp_path / "broken.jsonl")))
    finished = ragcun("train", "-r", broken, "-r", arms[1])
    assert finished.exit_code == 1
    assert state(tmp_path / "runs" / "even") == "finished"
    assert "1 of 2 runs did not finish" in finished.stderr
    assert "not valid JSON" in (tmp_path / "runs" / "broken.log").read_text()
    assert "broken: " in finished.stderr  # and the command says why itself
    assert "not valid JSON" in " ".join(finished.stderr.replace("│", " ").split())
    # Again: one fails as before, one has not begun, one is finished.
    again = ragcun("train", "-r", broken, "-r", arms[0], "-r", arms[1], "--resume", "--json")
    assert again.exit_code == 1
    entries = json.loads(again.stdout)
    assert [entry["state"] for entry in entries] == ["failed", "done", "done"]
    assert "not valid JSON" in entries[0]["error"]
    assert state(tmp_path / "runs" / "plain") == "finished"


def test_two_runs_in_one_folder_are_refused_before_any_starts(
    ragcun: RunCommand, arms: list[Path], tmp_path: Path
) -> None:
    for more in ([], ["--dry-run"]):
        finished = ragcun("train", "-r", arms[0], "-r", arms[1], "--set", f"output_dir={tmp_path / 'same'}", *more)
        assert finished.exit_code == 2
        assert "two runs would train into this folder: plain (seed 0) and even" in " ".join(finished.stderr.split())
    assert not (tmp_path / "same").exists()


def test_a_folder_that_may_not_be_had_is_named_before_any_starts(
    ragcun: RunCommand, arms: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "runs" / "even").mkdir(parents=True)
    (tmp_path / "runs" / "even" / "thesis.tex").write_text("precious")
    finished = ragcun("train", "-r", arms[0], "-r", arms[1])
    assert finished.exit_code == 2
    assert not (tmp_path / "runs" / "plain").exists()


@pytest.mark.parametrize("seeds", ["0,x", "", "1,1", "-1", "0,,1"])
def test_seeds_that_are_none(ragcun: RunCommand, arms: list[Path], seeds: str) -> None:
    finished = ragcun("train", "-r", arms[0], "--seeds", seeds)
    assert finished.exit_code == 2
    assert "--seeds" in finished.stderr


def test_a_dry_run_plans_each(ragcun: RunCommand, arms: list[Path], tmp_path: Path) -> None:
    finished = ragcun("train", "-r", arms[0], "-r", arms[1], "--seeds", "0,1", "--dry-run", "--json")
    assert finished.exit_code == 0, finished.stderr
    assert [plan["recipe"]["seed"] for plan in json.loads(finished.stdout)] == [0, 1, 0, 1]
    assert not (tmp_path / "runs").exists()


def test_with_gpus_each_run_has_one_and_no_two_the_same(
    arms: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs are small programs that write down which GPU they may see."""
    seen = tmp_path / "seen"
    seen.mkdir()
    program = (
        "import os, sys, time; name = os.environ['CUDA_VISIBLE_DEVICES'];"
        f"place = {str(seen)!r} + '/' + name;"
        "assert not os.path.exists(place); open(place, 'w').close(); time.sleep(0.5); os.remove(place);"
        "assert os.environ['OMP_NUM_THREADS'] == '4';"
        f"open({str(seen)!r} + '.log', 'a').write(name + ' ')"
    )
    monkeypatch.setattr(multi_run, "Child", lambda _, *rest: Child([sys.executable, "-c", program], *rest))
    monkeypatch.setattr(multi_run, "POLL_SECONDS", 0.05)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 9)
    recipes = [each for path in arms for each in one_per_seed(load_recipe(str(path)), [0, 1, 2])]
    runs = plan_runs(recipes, resume=False, overwrite=False)
    train_all(runs, gpus=2, on_change=lambda: None)
    assert [run.exit_code for run in runs] == [0] * 6
    assert sorted((tmp_path / "seen.log").read_text().split()) == ["4"] * 3 + ["7"] * 3


@pytest.mark.parametrize(("gpus", "threads"), [(8, "4"), (2, "4"), (1, "not set")])
def test_cores_are_divided_among_the_runs_at_one_time(
    gpus: int, threads: str, arms: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs on eight GPUs share the cores by two, not by eight."""
    program = (
        f"import os; open({str(tmp_path / 'seen')!r}, 'a').write(os.environ.get('OMP_NUM_THREADS', 'not set') + '/')"
    )
    monkeypatch.setattr(multi_run, "Child", lambda _, *rest: Child([sys.executable, "-c", program], *rest))
    monkeypatch.setattr(multi_run, "POLL_SECONDS", 0.05)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 9)
    runs = plan_runs([load_recipe(str(path)) for path in arms][:2], resume=False, overwrite=False)
    train_all(runs, gpus=gpus, on_change=lambda: None)
    assert (tmp_path / "seen").read_text() == f"{threads}/" * 2


def test_stopping_stops_the_run_that_trains_and_resume_goes_on(arms: list[Path], tmp_path: Path) -> None:
    def command(*flags: str) -> subprocess.Popen[str]:
        recipes = [part for path in arms for part in ("-r", str(path))]
        changes = ("max_steps=null", "epochs=15", "eval_every=75", "save_every=5")
        more = [*(part for change in changes for part in ("--set", change)), *flags]
        return subprocess.Popen(
            [sys.executable, "-m", "ragcun_cli", "train", *recipes, *more], stderr=subprocess.PIPE, text=True
        )

    first = command()
    checkpoints = tmp_path / "runs" / "plain" / "checkpoints"
    deadline = time.monotonic() + 120
    while not (checkpoints.is_dir() and list(checkpoints.glob("step-*"))):
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.send_signal(signal.SIGTERM)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 75, said
    assert "--resume continue" in said
    assert state(tmp_path / "runs" / "plain") == "interrupted"
    assert not (tmp_path / "runs" / "even").exists()
    second = command("--resume")
    _, said = second.communicate(timeout=180)
    assert second.returncode == 0, said
    assert "resumed at step" in (tmp_path / "runs" / "plain.log").read_text()
    assert state(tmp_path / "runs" / "even") == "finished"


def test_what_an_earlier_run_left_is_not_taken_for_this_ones(ragcun: RunCommand, arms: list[Path]) -> None:
    from ragcun_cli.train.arm import train_arm

    for path in arms:
        train_arm(load_recipe(str(path)))
    again = ragcun("train", "-r", arms[0], "-r", arms[1], "--overwrite", "--set", "max_length=600", "--json")
    assert again.exit_code == 2
    for entry in json.loads(again.stdout):
        assert "max_length: 600 is more than" in entry["error"]
        assert entry["steps"] is None


def test_a_run_ends_with_the_process_that_started_it(arms: list[Path], tmp_path: Path) -> None:
    recipes = [part for path in arms for part in ("-r", str(path))]
    more = ["--set", "max_steps=null", "--set", "epochs=2000", "--set", "save_every=5"]
    parent = subprocess.Popen([sys.executable, "-m", "ragcun_cli", "train", *recipes, *more], stderr=subprocess.PIPE)
    folder = tmp_path / "runs" / "plain"
    wait_until(lambda: list(folder.glob("checkpoints/step-*")), parent)
    parent.kill()
    parent.wait()
    wait_until(lambda: state(folder) == "interrupted")


def wait_until(condition: Callable[[], object], process: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process is None or process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_resume_starts_again_what_stopped_before_its_first_checkpoint(
    arms: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ragcun_cli.train import loop
    from ragcun_cli.train.arm import train_arm

    plain, even = (load_recipe(str(path)) for path in arms)
    train_arm(plain)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "optimiser_step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train_arm(even)
    assert [run.flag for run in plan_runs([plain, even], resume=True, overwrite=False)] == ["--resume", "--resume"]
    changed = even.model_copy(update={"lambda_reg": 0.7})
    with pytest.raises(UsageError, match="the recipe has changed: lambda_reg"):
        plan_runs([plain, changed], resume=True, overwrite=False)


def test_resume_and_overwrite_exclude_each_other(arms: list[Path]) -> None:
    recipes = [load_recipe(str(path)) for path in arms]
    with pytest.raises(UsageError, match="cannot be combined"):
        plan_runs(recipes, resume=True, overwrite=True)


def test_a_run_that_the_system_kills_counts_as_failed(arms: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    program = f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"
    monkeypatch.setattr(multi_run, "Child", lambda _, *rest: Child([sys.executable, "-c", program], *rest))
    monkeypatch.setattr(multi_run, "POLL_SECONDS", 0.05)
    runs = plan_runs([load_recipe(str(path)) for path in arms], resume=False, overwrite=False)
    train_all(runs, gpus=0, on_change=lambda: None)
    assert [run.state() for run in runs] == ["failed", "failed"]
    assert multi_run.exit_code_of(runs) == 1
    assert os.path.exists(runs[0].log)
