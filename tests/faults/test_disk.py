"""A disk that is full, or too small, or that spoils what it keeps."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragcun_cli.errors import EnvironmentUnfit
from ragcun_cli.train import loop
from ragcun_cli.train.arm import train_arm
from ragcun_cli.train.checkpoint import newest_valid
from ragcun_cli.train.disk import folder_bytes, require_room
from ragcun_cli.train.run_folder import checkpoints_in
from tests.conftest import RunCommand
from tests.damage import damage
from tests.faults.train_process import assert_same_run, status
from tests.training_runs import load, stopped_at

pytestmark = pytest.mark.processes

FILES = ("model.safetensors", "optimiser.safetensors", "random.safetensors", "state.json", "run/recipe.yaml",
         "run/environment.json", "run/metrics.jsonl", "run/speed.jsonl")  # fmt: skip


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted_disk(tmp_path / "disk") as place:
        yield place


@contextlib.contextmanager
def mounted_disk(place: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small disk needs root: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=False)


def test_a_disk_that_fills_up_keeps_the_last_good_checkpoint(
    small_recipe: Path, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, ragcun: RunCommand
) -> None:
    whole = load(small_recipe, "save_every=2", f"output_dir='{tmp_path / 'whole'}'")
    train_arm(whole)
    real = loop.optimiser_step

    def filling(training: object, *rest: object) -> object:
        if training.progress.step == 6:
            free = shutil.disk_usage(small_disk).free
            (small_disk / "others.bin").write_bytes(bytes(max(free - 300_000, 0)))
        return real(training, *rest)

    output = small_disk / "run"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "optimiser_step", filling)
        finished = ragcun("train", "-r", small_recipe, "--set", "save_every=2", "--set", f"output_dir={output}")
    assert finished.exit_code == 4, finished.stderr
    said = " ".join(finished.stderr.replace("│", " ").split())
    assert "the disk is full" in said
    assert "Free some space and continue with --resume" in said
    newest, _ = newest_valid(output / "checkpoints")
    assert newest is not None
    (small_disk / "others.bin").unlink()
    again = ragcun("train", "-r", small_recipe, "--set", "save_every=2", "--set", f"output_dir={output}", "--resume")
    assert again.exit_code == 0, again.stderr
    assert_same_run(tmp_path / "whole", output)


def test_a_disk_that_is_too_small_is_refused_before_the_first_step(
    small_recipe: Path, small_disk: Path, ragcun: RunCommand
) -> None:
    (small_disk / "others.bin").write_bytes(bytes(shutil.disk_usage(small_disk).free - 1_000_000))
    finished = ragcun("train", "-r", small_recipe, "--set", f"output_dir={small_disk / 'run'}")
    assert finished.exit_code == 4
    assert "3 checkpoints of" in finished.stderr
    assert "step 1/" not in finished.stderr
    assert not (small_disk / "run" / "recipe.yaml").exists()


def test_checkpoints_that_are_there_have_their_room_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragcun_cli.train.disk.free_bytes", lambda _: 150)
    require_room(tmp_path, 100, checkpoints=2, present_bytes=50)
    with pytest.raises(EnvironmentUnfit, match="2 checkpoints of 100 bytes do not fit, 150 bytes are free"):
        require_room(tmp_path, 100, checkpoints=2, present_bytes=49)
    with pytest.raises(EnvironmentUnfit):  # the new one must fit beside the last good one
        require_room(tmp_path, 151, checkpoints=2, present_bytes=1000)
    with pytest.raises(EnvironmentUnfit, match="and models of 101 bytes"):
        require_room(tmp_path, 50, checkpoints=1, present_bytes=0, model_bytes=101)


@pytest.mark.parametrize("kind", ["flip", "truncate", "empty"])
def test_each_file_of_a_checkpoint_is_watched(small_recipe: Path, tmp_path: Path, kind: str) -> None:
    recipe = load(small_recipe, f"output_dir='{tmp_path / 'run'}'")
    with stopped_at(10):
        train_arm(recipe)
    root = tmp_path / "run" / "checkpoints"
    assert [each.name for each in checkpoints_in(root)] == ["step-00000008", "step-00000004"]
    assert {path.relative_to(root / "step-00000008").as_posix() for path in (root / "step-00000008").rglob("*.*")} == {
        *FILES, "manifest.json",
    }  # fmt: skip
    kept = tmp_path / "kept"
    shutil.copytree(root, kept)
    for name in (*FILES, "manifest.json"):
        damage(root / "step-00000008", name, kind)
        newest, skipped = newest_valid(root)
        assert newest is not None
        if newest.name == "step-00000008":  # the manifest still says the same, without its last line's end
            assert name == "manifest.json"
            assert kind != "empty"
        else:
            assert skipped[0].startswith("step-00000008 was skipped: ")
        shutil.rmtree(root)
        shutil.copytree(kept, root)
    damage(root / "step-00000008", "random.safetensors", kind)
    with stopped_at(6):
        train_arm(recipe, resume=True)
    assert [each.name for each in checkpoints_in(root)] == ["step-00000004"]
    assert train_arm(recipe, resume=True).steps == 15
    assert status(tmp_path / "run")["state"] == "finished"


def test_folder_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(bytes(7))
    assert folder_bytes(tmp_path) == 7
