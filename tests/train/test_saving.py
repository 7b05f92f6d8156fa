"""Checkpoints that are written beside the training thread."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ragcun_cli.train import saving
from ragcun_cli.train.arm import train_arm
from ragcun_cli.train.checkpoint import TrainingState, newest_valid
from ragcun_cli.train.run_folder import checkpoints_in
from ragcun_cli.train.saving import Saver
from tests.training_runs import load, metrics


def state(step: int, weight: torch.Tensor) -> TrainingState:
    return TrainingState(step, {"w": weight}, {"0.m": weight}, {"0.cpu": torch.get_rng_state()}, {"step": step}, {})


def saver(folder: Path, keep_last: int = 2) -> Saver:
    return Saver(folder, folder / "checkpoints", keep_last, lambda _: None)


def test_the_update_waits_for_the_copy_and_not_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copying, writing = threading.Event(), threading.Event()
    copied = TrainingState.copied

    def slow_copy(self: TrainingState, buffers: dict[str, torch.Tensor]) -> TrainingState:
        copying.wait(5)
        return copied(self, buffers)

    monkeypatch.setattr(TrainingState, "copied", slow_copy)
    real = saving.write_checkpoint

    def slow_write(root: Path, state: TrainingState) -> Path:
        writing.wait(5)
        return real(root, state)

    monkeypatch.setattr("ragcun_cli.train.saving.write_checkpoint", slow_write)
    weight = torch.zeros(3)
    ours = saver(tmp_path)
    started = time.monotonic()
    ours.begin(state(1, weight))
    assert time.monotonic() - started < 1
    threading.Timer(0.2, copying.set).start()
    ours.before_update()
    assert time.monotonic() - started >= 0.2  # it was still being read
    weight += 1  # the optimiser's step
    assert checkpoints_in(tmp_path / "checkpoints") == []
    writing.set()
    ours.finish()
    newest, _ = newest_valid(tmp_path / "checkpoints")
    assert newest is not None
    assert torch.equal(load_file(newest / "model.safetensors")["w"], torch.zeros(3))


def test_the_copy_s_memory_is_used_again_where_it_fits() -> None:
    buffers: dict[str, torch.Tensor] = {}
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.bfloat16)
    first = TrainingState(1, {"w": weight.T}, {"0.step": torch.tensor(3.0)}, {}, {}, {}).copied(buffers)
    assert torch.equal(first.model["w"], weight.T)
    assert float(first.optimiser["0.step"]) == 3.0
    second = state(2, torch.ones(2, 2, dtype=torch.bfloat16)).copied(buffers)
    assert second.model["w"].data_ptr() == first.model["w"].data_ptr()
    assert torch.equal(second.model["w"], torch.ones(2, 2, dtype=torch.bfloat16))
    assert state(3, torch.ones(5)).copied(buffers).model["w"].shape == (5,)


def test_what_goes_wrong_is_raised_in_the_training_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Path:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("ragcun_cli.train.saving.write_checkpoint", broken)
    ours = saver(tmp_path)
    ours.begin(state(1, torch.zeros(3)))
    with pytest.raises(OSError, match="Input/output error"):
        ours.finish()
    ours.finish()  # said once


def test_keep_last_and_the_order_of_saves(tmp_path: Path) -> None:
    ours = saver(tmp_path, keep_last=3)
    for step in range(1, 7):
        ours.begin(state(step, torch.full((1000,), float(step))))
    ours.finish()
    assert [each.name for each in checkpoints_in(tmp_path / "checkpoints")] == [
        "step-00000006", "step-00000005", "step-00000004",
    ]  # fmt: skip
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_checkpoints_by_the_clock(small_recipe: Path, tmp_path: Path) -> None:
    often = load(small_recipe, "save_every=1000", "save_every_minutes=1e-9", "keep_last=4")
    train_arm(often)
    names = [each.name for each in checkpoints_in(Path(often.output_dir) / "checkpoints")]
    assert names == [f"step-{step:08}" for step in (15, 14, 13, 12)]
    never = load(small_recipe, "save_every=1000", "save_every_minutes=1000", f"output_dir='{tmp_path / 'never'}'")
    train_arm(never)
    assert checkpoints_in(tmp_path / "never" / "checkpoints") == []
    assert metrics(often.output_dir) == metrics(never.output_dir)  # saving changes nothing


def test_on_a_busy_machine_a_checkpoint_is_whole_before_half_the_next_interval_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = threading.Event()
    real = saving.write_checkpoint

    def slow_write(root: Path, state: TrainingState) -> Path:
        writing.wait(10)
        return real(root, state)

    monkeypatch.setattr("ragcun_cli.train.saving.write_checkpoint", slow_write)
    ours = Saver(tmp_path, tmp_path / "checkpoints", 2, lambda _: None, most_behind=2)
    ours.begin(state(4, torch.zeros(3)))
    for _ in range(2):
        ours.before_update()
        assert checkpoints_in(tmp_path / "checkpoints") == []  # two steps may go on beside it
    threading.Timer(0.3, writing.set).start()
    ours.before_update()  # the third waits
    assert [path.name for path in checkpoints_in(tmp_path / "checkpoints")] == ["step-00000004"]
