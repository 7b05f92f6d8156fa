"""Estimates of time, from counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ragcun_cli.recipe import estimates
from ragcun_cli.recipe.estimates import BASE, Machine, estimate_encoding, estimate_training, shape_of, tokens_of
from ragcun_cli.recipe.loading import load_recipe

T4, A100 = Machine("T4", 1, 2), Machine("A100", 8, 48)
CPU = Machine("CPU", 1, 2)


def test_the_shape_is_that_of_the_encoder(tmp_path: Path) -> None:
    assert BASE.weights == 84_934_656  # of BERT-base's 12 layers
    (tmp_path / "config.json").write_text(
        json.dumps({"num_hidden_layers": 2, "hidden_size": 10, "intermediate_size": 40})
    )
    assert shape_of(str(tmp_path)).weights == 2 * (4 * 100 + 2 * 400)
    assert not shape_of("nobody/unknown").known
    assumed = estimate_training(load_recipe("isotropy"), shape_of("nobody/unknown"), 1000, T4, 1)
    assert any("BERT-base's is assumed" in basis for basis in assumed.basis)


def test_training_is_work_by_rate_and_no_step_is_shorter_than_its_kernels() -> None:
    recipe = load_recipe("isotropy", ["epochs=1"])
    on_t4, on_a100 = (estimate_training(recipe, BASE, 16_000, machine, 1).seconds or 0 for machine in (T4, A100))
    tokens = tokens_of(6, 384) + 2 * tokens_of(56, 384)
    # 6 FLOP a weight and token, some per cent more for attention, at a quarter of 65 TFLOP/s.
    assert on_t4 == pytest.approx(16_000 * 6 * BASE.weights * tokens / (0.25 * 65e12), rel=0.1)
    assert on_a100 == 1000 * estimates.SECONDS_OF_A_STEP
    assert estimate_training(recipe, BASE, 16_000, T4, 1, triples_per_second=50).seconds == 320


def test_a_frozen_encoder_reads_each_text_once() -> None:
    once = estimate_training(load_recipe("frozen", ["epochs=1"]), BASE, 16_000, T4, 1).seconds or 0
    thrice = estimate_training(load_recipe("frozen", ["epochs=3"]), BASE, 16_000, T4, 1).seconds or 0
    assert thrice - once == pytest.approx(2 * 1000 * estimates.SECONDS_OF_A_HEAD_STEP)


def test_max_steps_ends_the_estimate_too() -> None:
    recipe = load_recipe("isotropy", ["max_steps=10"])
    assert (estimate_training(recipe, BASE, 500_000, A100, 1).seconds or 0) == pytest.approx(0.6)


def test_a_cpu_is_as_fast_as_one_that_was_measured() -> None:
    """12.1 triples of MiniLM a second on two cores (README): the estimate is of the same texts' size."""
    recipe = load_recipe("demo-isotropy", ["max_steps=null", "epochs=1"])
    seconds = estimate_training(recipe, shape_of(recipe.base_model), 1600, CPU, 1).seconds or 0
    assert 1600 / seconds == pytest.approx(12.1, rel=0.35)


def test_evaluation_depends_on_precision_and_length() -> None:
    passages = [(1_000_000, 100.0)]
    single, half = (
        estimate_encoding(BASE, passages, 384, precision, A100).seconds or 0 for precision in ("float32", "bf16")
    )
    assert single / half == pytest.approx(312 * 0.35 / (19.5 * 0.6))
    assert (estimate_encoding(BASE, passages, 64, "bf16", A100).seconds or 0) < half


def test_an_unknown_device_is_not_guessed() -> None:
    unknown = Machine("B200", 8, 96)
    assert estimate_training(load_recipe("isotropy"), BASE, 1000, unknown, 1).seconds is None
    assert "B200" in estimate_encoding(BASE, [], 384, "bf16", unknown).basis[0]
