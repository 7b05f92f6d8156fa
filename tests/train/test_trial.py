"""The few steps that a recipe is tried with."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from ragcun_cli.data.batches import BatchSequence
from ragcun_cli.data.triples.table import evenly
from ragcun_cli.recipe.trial_figures import Trial
from ragcun_cli.train import trial
from ragcun_cli.train.hardware import find_hardware
from ragcun_cli.train.prepare import read_data
from ragcun_cli.train.trial import part_of, smaller_batch, try_recipe
from tests.conftest import RunCommand
from tests.training_runs import load


def test_places_from_all_over() -> None:
    assert evenly(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert evenly(101, 3).tolist() == [0, 50, 100]
    assert evenly(1, 3).tolist() == [0]


def test_some_rows_are_a_table_of_their_own(small_recipe: Path) -> None:
    table = read_data(load(small_recipe)).table
    rows = np.array([3, 40, 41])
    few = part_of(table, rows)
    assert len(few) == 3
    for number, row in enumerate(rows.tolist()):
        assert few.texts[few.queries[number]] == table.texts[table.queries[row]]
        assert few.texts[few.positives[number]] == table.texts[table.positives[row]]
        ours, _ = few.negatives_of(np.array([number]))
        theirs, _ = table.negatives_of(np.array([row]))
        assert [few.texts[each] for each in ours] == [table.texts[each] for each in theirs]
    assert len(few.texts) < len(table.texts)


def test_a_smaller_batch_keeps_its_rows_negatives(small_recipe: Path) -> None:
    batch = BatchSequence(read_data(load(small_recipe)).table, 8, seed=0).batch(0)
    few = smaller_batch(batch, 3)
    assert few.rows.tolist() == batch.rows[:3].tolist()
    assert few.negatives.tolist() == batch.negatives[batch.negative_owners < 3].tolist()


@pytest.mark.parametrize("frozen", [False, True])
def test_the_loss_of_a_repeated_batch_falls(small_recipe: Path, tmp_path: Path, frozen: bool) -> None:
    recipe = load(small_recipe, f"freeze_base={str(frozen).lower()}", "projection_learning_rate=0.01")
    found = try_recipe(recipe, read_data(recipe), find_hardware())
    assert 0 < found.losses[1] < found.losses[0]
    assert (found.training_tokens is None) == frozen
    assert found.trainable == found.parameters or frozen
    assert found.triples == 80
    assert found.dev_texts > 0
    assert not Path(recipe.output_dir).exists()
    assert Trial(**json.loads(json.dumps(asdict(found)))).counts() == found.counts()


def test_the_batch_of_longest_rows_is_longer_than_any_of_the_run(small_recipe: Path) -> None:
    recipe = load(small_recipe)
    data = read_data(recipe)
    found = try_recipe(recipe, data, find_hardware())
    from tests.training_runs import prepared

    training = prepared(recipe)
    longest = max(
        int(training.text_lengths[training.batches.batch(number).texts()].sum())
        for number in range(len(data.table) // recipe.batch_size)
    )
    assert found.longest_tokens >= longest


def test_a_slow_step_is_tried_with_a_part_of_the_batch(small_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SECONDS_OF_A_STEP", 1e-6)
    recipe = load(small_recipe)
    assert try_recipe(recipe, read_data(recipe), find_hardware()).batch == trial.SMALLEST_BATCH


def test_a_dry_run_says_what_it_will_take_and_writes_nothing(
    ragcun: RunCommand, small_recipe: Path, tmp_path: Path
) -> None:
    plan = json.loads(ragcun("train", "-r", small_recipe, "--dry-run", "--json", "--dollars-per-hour", "1").stdout)
    here = plan["estimate"]["here"]
    assert here["seconds"] == pytest.approx(sum(here["parts"].values()))
    assert here["dollars"] == pytest.approx(here["seconds"] / 3600)
    assert here["basis"][0].startswith("measured in 3 steps of 8 triples")
    calculated = plan["estimate"]["calculated"]["p4d.24xlarge"]
    assert calculated["dollars"] > 0
    assert not Path(load(small_recipe).output_dir).exists()
    shown = ragcun("train", "-r", small_recipe, "--dry-run").stdout
    assert "One training run on this machine" in shown
    assert "One training run on AWS" not in shown  # of minutes: no machine is rented for that
