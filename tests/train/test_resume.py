"""A run that is stopped anywhere continues as if it had not been; and whose folder is whose."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ragcun_cli.errors import EnvironmentUnfit, ModelError, UsageError
from ragcun_cli.recipe.loading import load_recipe
from ragcun_cli.runs.folder import RunFolder
from ragcun_cli.train import run_folder
from ragcun_cli.train.arm import train_arm
from ragcun_cli.train.checkpoint import newest_valid
from tests.damage import KINDS, damage
from tests.training_runs import wait_for_writers

pytestmark = pytest.mark.processes

# So long that a signal never comes after the end, whatever else the machine does.
RESUMABLE = ["epochs=15", "max_steps=null", "save_every=5", "eval_every=60", "learn_temperature=true"]


def train(recipe: Path, output: Path, more: list[str], *flags: str) -> subprocess.Popen[str]:
    settings = [part for value in [*RESUMABLE, *more, f"output_dir='{output}'"] for part in ("--set", value)]
    return subprocess.Popen(
        [sys.executable, "-m", "ragcun_cli", "train", "--recipe", str(recipe), *settings, *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: object, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {**load_file(folder / "model.safetensors"), **load_file(folder / "projection.safetensors")}


@pytest.mark.parametrize(
    ("stop", "frozen"),
    [(signal.SIGKILL, "false"), (signal.SIGINT, "false"), (signal.SIGKILL, "true")],
)
def test_a_stopped_run_ends_like_one_that_was_not(
    small_recipe: Path, tmp_path: Path, stop: signal.Signals, frozen: str
) -> None:
    whole, stopped, more = tmp_path / "whole", tmp_path / "stopped", [f"freeze_base={frozen}"]
    train_arm(load_recipe(str(small_recipe), [*RESUMABLE, *more, f"output_dir='{whole}'"]))

    first = train(small_recipe, stopped, more)
    wait_for(lambda: (stopped / "checkpoints" / "step-00000035").is_dir(), first)
    first.send_signal(stop)
    _, said = first.communicate(timeout=60)
    if stop is not signal.SIGKILL:
        assert first.returncode == 75
        status = json.loads((stopped / "status.json").read_text())
        assert (status["state"], status["exit_code"]) == ("interrupted", 75)
        assert status["exit_reason"] == "Ctrl-C"
        assert "--resume continues from step-" in " ".join(said.replace("│", " ").split())
        assert "Traceback" not in said
    assert not (stopped / "final_model").exists()

    second = train(small_recipe, stopped, more, "--resume")
    _, said = second.communicate(timeout=120)
    assert second.returncode == 0, said
    assert "resumed at step" in said
    assert (stopped / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    for name in ("final_model", "best_model"):
        one, other = tensors(whole / name), tensors(stopped / name)
        assert all(torch.equal(one[key], other[key]) for key in one)


def interrupted(small_recipe: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run stopped in this process at step 11, after the checkpoints of steps 4 and 8."""
    from ragcun_cli.train import loop

    real, steps = loop.optimiser_step, iter(range(100))

    def stopping(training: object, before_update: object) -> object:
        if next(steps) == 11:
            raise KeyboardInterrupt
        return real(training, before_update)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "optimiser_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            train_arm(load_recipe(str(small_recipe), [f"output_dir='{output}'"]))
    wait_for_writers()


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_checkpoint_is_skipped_with_its_reason(
    small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    output = tmp_path / "run"
    interrupted(small_recipe, output, monkeypatch)
    newest = output / "checkpoints" / "step-00000008"
    damage(newest, "optimiser.safetensors", kind)
    found, skipped = newest_valid(output / "checkpoints")
    assert found == output / "checkpoints" / "step-00000004"
    assert len(skipped) == 1
    assert skipped[0].startswith("step-00000008 was skipped: ")
    summary = train_arm(load_recipe(str(small_recipe), [f"output_dir='{output}'"]), resume=True)
    assert summary.steps == 15


def test_resume_with_nothing_to_resume_starts(
    small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train_arm(load_recipe(str(small_recipe)), resume=True).steps == 15
    output = tmp_path / "early"
    early = load_recipe(str(small_recipe), [f"output_dir='{output}'", "save_every=100"])
    from ragcun_cli.train import loop

    with monkeypatch.context() as patch:
        patch.setattr(loop, "optimiser_step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train_arm(early)
    assert train_arm(early, resume=True).steps == 15
    assert "no checkpoint yet; starting at the first step" in capfd.readouterr().err


def test_a_run_is_not_resumed_on_other_texts(
    small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, triples_file: Path
) -> None:
    data, output = tmp_path / "triples.jsonl", tmp_path / "run"
    data.write_bytes(triples_file.read_bytes())
    small_recipe.write_text(small_recipe.read_text().replace(str(triples_file), str(data)))
    interrupted(small_recipe, output, monkeypatch)
    data.write_text(data.read_text().replace("w1 ", "w2 "))
    with pytest.raises(UsageError, match="these have changed since the run began: train_sha256"):
        train_arm(load_recipe(str(small_recipe), [f"output_dir='{output}'"]), resume=True)


def test_what_a_kill_left_half_written_is_swept(
    small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "run"
    interrupted(small_recipe, output, monkeypatch)
    (output / "checkpoints" / ".step-00000012.0123abcd.tmp").mkdir()
    train_arm(load_recipe(str(small_recipe), [f"output_dir='{output}'"]), resume=True)
    assert not list((output / "checkpoints").glob(".*"))


def test_resuming_a_finished_run_changes_nothing(small_recipe: Path) -> None:
    recipe = load_recipe(str(small_recipe))
    first = train_arm(recipe)
    before = {path: path.stat().st_mtime_ns for path in Path(first.folder).rglob("*") if path.is_file()}
    assert train_arm(recipe, resume=True) == first
    assert before == {path: path.stat().st_mtime_ns for path in Path(first.folder).rglob("*") if path.is_file()}


def test_a_folder_with_a_run_is_not_trained_over_unasked(small_recipe: Path) -> None:
    recipe = load_recipe(str(small_recipe), ["max_steps=2"])
    train_arm(recipe)
    with pytest.raises(UsageError, match=r"holds a run of this recipe \(finished\)"):
        train_arm(recipe)
    other = recipe.model_copy(update={"lambda_isotropy": 0.5})
    with pytest.raises(UsageError, match=r"another recipe \(lambda_isotropy is 1\.0 there, 0\.5 here\)"):
        train_arm(other)
    with pytest.raises(UsageError, match="cannot resume because the recipe has changed: lambda_isotropy"):
        train_arm(other, resume=True)
    with pytest.raises(UsageError, match="cannot be combined"):
        train_arm(recipe, resume=True, overwrite=True)
    train_arm(other, overwrite=True)
    assert "lambda_isotropy: 0.5" in (Path(recipe.output_dir) / "recipe.yaml").read_text()


def test_overwrite_keeps_the_old_run_until_the_new_one_can_begin(small_recipe: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(small_recipe), ["max_steps=2"])
    train_arm(recipe)
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{\n")
    with pytest.raises(Exception, match="not valid JSON"):
        train_arm(load_recipe(str(small_recipe), ["max_steps=2", f"data.train={broken}"]), overwrite=True)
    assert (Path(recipe.output_dir) / "final_model" / "model.safetensors").is_file()


def test_two_processes_do_not_train_into_one_folder(small_recipe: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    first = train(small_recipe, output, [])
    wait_for(lambda: (output / "metrics.jsonl").is_file(), first)
    for flags in (["--overwrite"], []):
        second = train(small_recipe, output, [], *flags)
        _, said = second.communicate(timeout=60)
        assert second.returncode == 2
        assert "another process is training into this folder" in " ".join(said.replace("│", " ").split())
    _, said = first.communicate(timeout=120)
    assert first.returncode == 0, said


def test_a_run_whose_recipe_is_broken_can_be_overwritten(small_recipe: Path) -> None:
    recipe = load_recipe(str(small_recipe), ["max_steps=2"])
    train_arm(recipe)
    (Path(recipe.output_dir) / "recipe.yaml").write_text("[")
    with pytest.raises(ModelError, match="not readable"):
        train_arm(recipe)
    train_arm(recipe, overwrite=True)


def test_overwrite_never_takes_a_folder_that_is_not_a_run(small_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("precious")
    recipe = load_recipe(str(small_recipe))
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="exists and is not a ragcun run"):
            train_arm(recipe, overwrite=overwrite)
    assert os.listdir(tmp_path / "run") == ["thesis.tex"]


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/tmp belongs to all users: a link there could lead to a file of ours."""
    monkeypatch.setattr(run_folder.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = RunFolder(tmp_path / "run")
    with run_folder.locked(folder):
        (lock,) = tmp_path.glob("ragcun-*.lock")
    lock.unlink(missing_ok=True)
    mine = tmp_path / "mine"
    mine.write_text("precious")
    lock.symlink_to(mine)
    with pytest.raises(EnvironmentUnfit, match="cannot be used as a lock"), run_folder.locked(folder):
        pass
    assert mine.read_text() == "precious"
