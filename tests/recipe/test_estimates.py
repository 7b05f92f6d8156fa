"""Estimates of time, memory and disk, from counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ragcun_cli.recipe import estimates
from ragcun_cli.recipe.encoder_shapes import BASE, EncoderShape, shape_of
from ragcun_cli.recipe.estimates import (
    Estimate,
    Machine,
    ModelSize,
    Rates,
    RunCounts,
    assumed_counts,
    assumed_size,
    calculated_rates,
    dev_scores,
    estimate_encoding,
    estimate_training,
    tokens_of,
)
from ragcun_cli.recipe.loading import load_recipe
from ragcun_cli.recipe.schema import Recipe

T4, A100 = Machine("T4", 1, 2), Machine("A100", 8, 48)
CPU = Machine("CPU", 1, 2)


def calculated(recipe: Recipe, triples: int, machine: Machine, shape: EncoderShape = BASE) -> Estimate:
    rates = calculated_rates(recipe, shape, machine, 1)
    size = assumed_size(recipe, shape, "half" if machine.is_gpu else "single")
    return estimate_training(recipe, assumed_counts(recipe, triples), size, rates)


def test_the_shape_is_that_of_the_encoder(tmp_path: Path) -> None:
    assert BASE.weights == 84_934_656  # of BERT-base's 12 layers
    assert BASE.parameters == pytest.approx(109.5e6, rel=0.01)
    (tmp_path / "config.json").write_text(
        json.dumps({"num_hidden_layers": 2, "hidden_size": 10, "intermediate_size": 40, "vocab_size": 7})
    )
    found = shape_of(str(tmp_path))
    assert (found.weights, found.vocabulary) == (2 * (4 * 100 + 2 * 400), 7)
    assert not shape_of("nobody/unknown").known
    assumed = calculated(load_recipe("isotropy"), 1000, T4, shape_of("nobody/unknown"))
    assert any("assumed to be BERT-base's" in basis for basis in assumed.basis)


def test_training_is_work_by_rate_and_no_step_is_shorter_than_its_kernels() -> None:
    recipe = load_recipe("isotropy", ["epochs=1"])
    on_t4, on_a100 = (calculated(recipe, 16_000, machine).parts["training"] or 0 for machine in (T4, A100))
    tokens = tokens_of(6, 384) + 2 * tokens_of(56, 384)
    # 6 FLOP a weight and token, some per cent more for attention, at a quarter of 65 TFLOP/s.
    assert on_t4 == pytest.approx(16_000 * 6 * BASE.weights * tokens / (0.25 * 65e12), rel=0.1)
    assert on_a100 == 1000 * estimates.SECONDS_OF_A_STEP


def test_a_rate_that_is_given_takes_the_calculations_place() -> None:
    recipe = load_recipe("isotropy", ["epochs=1"])
    rates = calculated_rates(recipe, BASE, T4, 1, triples=50)
    given = estimate_training(recipe, assumed_counts(recipe, 16_000), assumed_size(recipe, BASE, "half"), rates)
    assert given.parts["training"] == 320
    assert "50 triples/s, as given" in given.basis


def test_a_frozen_encoder_reads_each_text_once() -> None:
    once, thrice = (
        calculated(load_recipe("frozen", [f"epochs={epochs}"]), 16_000, T4).parts["training"] or 0 for epochs in (1, 3)
    )
    assert thrice - once == pytest.approx(2 * 1000 * estimates.SECONDS_OF_A_HEAD_STEP)


def test_max_steps_ends_the_estimate_too() -> None:
    recipe = load_recipe("isotropy", ["max_steps=10"])
    assert (calculated(recipe, 500_000, A100).parts["training"] or 0) == pytest.approx(0.6)


def test_a_cpu_is_as_fast_as_one_that_was_measured() -> None:
    """12.1 triples of MiniLM a second on two cores (docs/measured.md): the estimate is of the same texts' size."""
    recipe = load_recipe("demo-isotropy", ["max_steps=null", "epochs=1"])
    seconds = calculated(recipe, 1600, CPU, shape_of(recipe.base_model)).parts["training"] or 0
    assert 1600 / seconds == pytest.approx(12.1, rel=0.35)


def test_dev_scores_come_as_due_and_at_the_end() -> None:
    recipe = load_recipe("isotropy", ["eval_every=100"])
    assert [dev_scores(recipe, steps, 1000) for steps in (99, 100, 250)] == [1, 1, 3]
    assert dev_scores(load_recipe("isotropy", ["eval_every=null"]), 3000, 1000) == 3
    assert dev_scores(load_recipe("isotropy", ["data.dev=null"]), 3000, 1000) == 0


def test_measured_rates_make_the_parts() -> None:
    recipe = load_recipe("isotropy", ["epochs=2", "batch_size=10", "eval_every=null", "keep_last=2"])
    counts = RunCounts(100, 50.0, text_tokens=4000, batch_tokens=600, dev_texts=20, dev_tokens=1000)
    size = ModelSize(parameters=1000, trainable=1000, kept_bytes=10.0, runtime_bytes=5000)
    rates = Rates(100.0, 500.0, 2000.0, 0.0, 0.0, start=3.0, writing=4000.0, basis=("measured",))
    found = estimate_training(recipe, counts, size, rates)
    assert found.parts == {
        "start": 3 + 2,
        "training": 200 * 50 / 100,
        "dev scores": 2 * 1000 / 500,
        "saving": (2 + 2 + 1) * 1000 * 4 / 4000,
    }
    assert found.tokens == 10_000
    assert found.memory == 5000 + 16 * 1000 + 10 * 600
    assert found.disk == 3 * 12 * 1000 + (2 + 1 + 1) * 4000 + 4 * 4000
    assert found.seconds == sum(filter(None, found.parts.values()))


def test_a_dev_set_that_is_not_counted_is_said_so() -> None:
    found = calculated(load_recipe("isotropy"), 1000, T4)
    assert found.parts["dev scores"] == 0
    assert "dev scores are not included" in found.basis


def test_a_batch_that_does_not_fit_passes_in_chunks() -> None:
    recipe = load_recipe("isotropy", ["batch_size=512"])
    counts, size = assumed_counts(recipe, 10_000), assumed_size(recipe, BASE, "half")
    rates = calculated_rates(recipe, BASE, T4, 1)
    assert estimate_training(recipe, counts, size, rates).memory > 16e9
    assert estimate_training(recipe, counts, size, rates, limit=16e9).memory == 16e9
    assert estimate_training(recipe, counts, size, rates, limit=1e9).memory > 2e9  # weights do not pass in chunks


def test_evaluation_depends_on_precision_and_length() -> None:
    passages = [(1_000_000, 100.0)]
    single, half = (
        estimate_encoding(BASE, passages, 384, precision, A100)[0] or 0 for precision in ("float32", "bf16")
    )
    assert single / half == pytest.approx(312 * 0.35 / (19.5 * 0.6))
    assert (estimate_encoding(BASE, passages, 64, "bf16", A100)[0] or 0) < half


def test_an_unknown_device_is_not_guessed() -> None:
    unknown = Machine("B200", 8, 96)
    assert calculated(load_recipe("isotropy"), 1000, unknown).seconds is None
    assert "B200" in estimate_encoding(BASE, [], 384, "bf16", unknown)[1][0]


def test_accumulation_makes_no_frozen_step_shorter() -> None:
    """A head's step is timed for one batch; of several an optimiser's step takes as many times as long."""
    seconds = []
    for parts in (1, 8):
        recipe = load_recipe("frozen", ["epochs=1", f"gradient_accumulation_steps={parts}"])
        seconds.append(calculated(recipe, 128_000, T4).parts["training"])
    assert seconds[0] == pytest.approx(seconds[1])
