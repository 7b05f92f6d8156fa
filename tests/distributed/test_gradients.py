"""On two processes the gradient, the losses and the statistics are those of one."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch

from ragcun_cli.recipe.schema import IsotropyKind, Recipe
from tests.distributed import tasks
from tests.distributed.processes import Processes
from tests.training_runs import load, metrics

EXACT = 1e-6  # of the length of the whole gradient; float32 adds its thousand tokens up to about 3e-7


def compare(processes: Processes, recipe: Recipe, chunk: int | None = None) -> None:
    alone, norm, strategy = tasks.gradients(recipe.model_copy(update={"parallel": "auto"}), chunk)
    assert strategy == "none"
    for together, its_norm, its_strategy in processes.run(tasks.gradients, recipe, chunk):
        assert its_strategy == recipe.parallel
        assert its_norm == pytest.approx(norm, rel=1e-5)
        assert together.keys() == alone.keys()
        difference = length({name: together[name] - gradient for name, gradient in alone.items()})
        assert difference <= EXACT * length(alone), f"{difference} of {length(alone)}"


def length(gradients: dict[str, torch.Tensor]) -> float:
    return float(torch.linalg.vector_norm(torch.cat([each.double().flatten() for each in gradients.values()])))


# What else a run may have switched on, one with each term; a term that is not listed is tested alone.
TOGETHER_WITH = {
    "sigreg-exact": "learn_temperature=true",
    "covariance": "gradient_accumulation_steps=2",
    "vicreg": "contrastive=triplet",
    "uniformity": "gradient_checkpointing=true",
    "gor": "head=mlp",
}


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("kind", [kind for kind in get_args(IsotropyKind) if kind != "none"])
def test_the_gradient_on_two_processes_is_that_of_one(
    two_processes: Processes, small_recipe: Path, kind: str, parallel: str
) -> None:
    changes = [f"isotropy={kind}", *([TOGETHER_WITH[kind]] if kind in TOGETHER_WITH else [])]
    compare(two_processes, load(small_recipe, "dropout=0", f"parallel={parallel}", *changes))


def test_also_of_a_frozen_encoder_s_head(two_processes: Processes, small_recipe: Path) -> None:
    compare(two_processes, load(small_recipe, "dropout=0", "parallel=ddp", "freeze_base=true"))


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("chunk", [60, 150, 10_000])
def test_also_in_chunks_of_which_the_processes_have_differently_many(
    two_processes: Processes, small_recipe: Path, chunk: int, parallel: str
) -> None:
    compare(two_processes, load(small_recipe, "dropout=0", f"parallel={parallel}", "batch_size=7"), chunk)


def test_also_mpnet_with_its_shared_bias(two_processes: Processes, small_recipe: Path, tiny_mpnet: Path) -> None:
    for parallel in ("ddp", "fsdp"):
        changes = [f"base_model={tiny_mpnet}", f"parallel={parallel}", "dropout=0"]
        compare(two_processes, load(small_recipe, *changes))


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_the_losses_of_a_run_are_the_same_on_one_and_two_processes(
    two_processes: Processes, small_recipe: Path, tmp_path: Path, parallel: str
) -> None:
    changes = ["dropout=0", "learn_temperature=true", "gradient_accumulation_steps=2", "max_steps=8"]
    alone = load(small_recipe, *changes, f"output_dir='{tmp_path / 'alone'}'")
    both = load(small_recipe, *changes, f"output_dir='{tmp_path / 'both'}'", f"parallel={parallel}")
    assert tasks.train(alone) == 8
    assert two_processes.run(tasks.train, both) == [8, 8]
    lines = zip(metrics(alone.output_dir), metrics(both.output_dir), strict=True)
    for one, two in lines:
        assert one.keys() == two.keys()
        for name in ("loss", "contrastive", "isotropy", "variance", "gradient_norm", "temperature"):
            if name in one:
                assert two[name] == pytest.approx(one[name], rel=2e-4), (name, one["step"])
        assert two.get("tokens") == one.get("tokens")


def test_dropout_draws_other_numbers_in_each_process(two_processes: Processes) -> None:
    states = two_processes.run(first_draw)
    assert states[0] != states[1]
    torch.manual_seed(5)
    assert states[0] == float(torch.rand(()))


def first_draw() -> float:
    from ragcun_cli.train.random_state import first_random_state
    from ragcun_cli.train.world import world_of_environment

    first_random_state(5, world_of_environment().rank)
    return float(torch.rand(()))
