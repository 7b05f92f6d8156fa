"""Several processes stop together, at any step, and go on as if they had not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.train.checkpoint import newest_valid
from tests.distributed import tasks
from tests.distributed.processes import Processes
from tests.training_runs import load, metrics

# 80 triples: an epoch is five steps of two losses each.
CHANGES = ["learn_temperature=true", "gradient_accumulation_steps=2", "epochs=3", "max_steps=null", "eval_every=3"]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {**load_file(folder / "model.safetensors"), **load_file(folder / "projection.safetensors")}


def assert_equal_runs(one: str, other: str) -> None:
    assert (Path(one) / "metrics.jsonl").read_bytes() == (Path(other) / "metrics.jsonl").read_bytes()
    for name in ("final_model", "best_model", "checkpoint_epoch_1", "checkpoint_epoch_3"):
        ours, theirs = tensors(Path(one) / name), tensors(Path(other) / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name


def recipe(small_recipe: Path, folder: Path, *changes: str) -> Recipe:
    return load(small_recipe, *CHANGES, *changes, f"output_dir='{folder}'")


@pytest.mark.parametrize(
    ("parallel", "changes"),
    [
        ("ddp", []),
        ("ddp", ["chunk_tokens=200"]),
        ("ddp", ["freeze_base=true", "head=mlp"]),
        ("fsdp", []),
        ("fsdp", ["chunk_tokens=200", "gradient_checkpointing=true"]),
        ("fsdp", ["mixed_precision=bf16"]),
    ],
)
def test_two_processes_go_on_bit_for_bit(
    two_processes: Processes, small_recipe: Path, tmp_path: Path, parallel: str, changes: list[str]
) -> None:
    whole = recipe(small_recipe, tmp_path / "whole", f"parallel={parallel}", *changes)
    assert two_processes.run(tasks.train, whole) == [15, 15]
    stopped = recipe(small_recipe, tmp_path / "stopped", f"parallel={parallel}", *changes)
    # In the middle of an epoch, at its end where a dev score is due too, and asked for by either process.
    for step, rank in ((2, 1), (7, 0), (15 - 3, 1)):
        said = two_processes.run(tasks.train, stopped, step, rank, resume=True)
        assert f"stopped at step {step}: SIGTERM" in said[0]
        assert said[1] == "SIGTERM"
        status = json.loads((tmp_path / "stopped" / "status.json").read_text())
        assert (status["state"], status["step"], status["exit_code"]) == ("interrupted", step, 75)
    assert two_processes.run(tasks.train, stopped, resume=True) == [15, 15]
    assert_equal_runs(whole.output_dir, stopped.output_dir)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_run_goes_on_with_another_number_of_processes(
    two_processes: Processes, small_recipe: Path, tmp_path: Path, parallel: str, capfd: pytest.CaptureFixture[str]
) -> None:
    changes = ["dropout=0", f"parallel={parallel}"]
    alone = ["dropout=0", "parallel=auto"]
    whole = recipe(small_recipe, tmp_path / "whole", *alone)
    assert tasks.train(whole) == 15
    both = recipe(small_recipe, tmp_path / "run", *changes)
    one = both.model_copy(update={"parallel": "auto"})
    two_processes.run(tasks.train, both, 4)
    assert "stopped at step 9" in str(tasks.train(one, 9, resume=True))
    assert "not bit for bit the same from here on" in capfd.readouterr().err
    assert two_processes.run(tasks.train, both, resume=True) == [15, 15]
    for expected, found in zip(metrics(whole.output_dir), metrics(both.output_dir), strict=True):
        for name in ("step", "epoch", "learning_rate_base", "tokens"):  # of the order and the batches: exactly
            assert expected.get(name) == found.get(name)
        if "loss" in expected:
            assert found["loss"] == pytest.approx(expected["loss"], rel=1e-3)


def test_a_checkpoint_of_two_processes_has_both_random_states(
    two_processes: Processes, small_recipe: Path, tmp_path: Path
) -> None:
    run = recipe(small_recipe, tmp_path / "run")
    two_processes.run(tasks.train, run, 3)
    newest, _ = newest_valid(tmp_path / "run" / "checkpoints")
    assert newest is not None
    assert sorted(load_file(newest / "random.safetensors")) == ["0.cpu", "1.cpu"]
    assert json.loads((newest / "state.json").read_text())["spread"] == {
        "strategy": "ddp", "processes": 2, "device": "cpu",
    }  # fmt: skip
    shutil.rmtree(newest)


def test_fsdp_without_gpus_is_refused_and_not_replaced(
    two_processes: Processes, small_recipe: Path, tmp_path: Path
) -> None:
    refused = two_processes.run(tasks.strategy_made, recipe(small_recipe, tmp_path / "run", "parallel=fsdp"))
    assert all("fsdp needs GPUs; on this CPU Accelerate turns it into MULTI_CPU" in each for each in refused)
    alone = tasks.strategy_made(recipe(small_recipe, tmp_path / "run", "parallel=fsdp"))
    assert "spreads a model over several processes" in alone
