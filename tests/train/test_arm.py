"""Training one arm on a small real encoder: what it writes, what arms share, and that a frozen one is frozen."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ragcun_cli.data.batches import BatchSequence
from ragcun_cli.errors import RagcunError, UsageError
from ragcun_cli.evaluate.scoring import Evaluation
from ragcun_cli.model import IsotropicGaussianEncoder
from ragcun_cli.recipe.loading import load_recipe
from ragcun_cli.recipe.schema import Recipe
from ragcun_cli.train import arm, loop
from ragcun_cli.train.arm import plan_arm, train_arm
from ragcun_cli.train.hardware import find_hardware
from ragcun_cli.train.plan import make_plan
from ragcun_cli.train.run_folder import RunFolder


def load(small_recipe: Path, *overrides: str) -> Recipe:
    return load_recipe(str(small_recipe), overrides)


def metrics(folder: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def same_weights(one: Path, other: Path) -> bool:
    left, right = load_file(one), load_file(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_what_a_run_leaves(small_recipe: Path) -> None:
    recipe = load(small_recipe, "max_steps=null")
    summary = train_arm(recipe)
    folder = Path(summary.folder)
    assert summary.steps == 20
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "recipe.yaml", "environment.json", "status.json", "metrics.jsonl", "speed.jsonl", "checkpoints",
        "checkpoint_epoch_1", "checkpoint_epoch_2", "best_model", "final_model",
    }  # fmt: skip
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())] == ["step-00000012", "step-00000016"]
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["step"], status["total_steps"]) == ("finished", 20, 20)
    assert load_recipe(str(folder / "recipe.yaml"), [f"name={recipe.name}"]) == recipe  # re-runnable
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["plan"]["negatives_per_query"] == 15
    assert len(environment["model"]["initial_weights_sha256"]) == 64


def test_every_term_is_logged_and_adds_up(small_recipe: Path) -> None:
    recipe = load(small_recipe)
    lines = [line for line in metrics(train_arm(recipe).folder) if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, 16))
    for line in lines:
        total = line["contrastive"] + recipe.lambda_isotropy * line["isotropy"] + recipe.lambda_reg * line["variance"]
        assert line["loss"] == pytest.approx(total, rel=1e-5)
        assert line["gradient_norm"] > 0
    rates = [line["learning_rate_base"] for line in lines]
    assert rates[:2] == [pytest.approx(5e-4), pytest.approx(1e-3)]  # two optimiser steps of warm-up, not epochs
    assert rates[-1] < 0.02 * 1e-3


def test_training_lowers_the_loss(small_recipe: Path) -> None:
    summary = train_arm(load(small_recipe, "epochs=6", "max_steps=null", "lambda_isotropy=0", "lambda_reg=0"))
    losses = [line["loss"] for line in metrics(summary.folder) if "loss" in line]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


def test_the_best_model_is_chosen_by_dev_ndcg_and_not_by_the_loss(
    small_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.3, 0.9, 0.5])

    def scored(*_: object) -> Evaluation:
        figure = next(scores)
        return Evaluation({"ndcg@10": figure, "recall@100": 0, "map": 0, "mrr": 0}, {}, {}, None)

    monkeypatch.setattr(loop, "evaluate", scored)
    summary = train_arm(load(small_recipe))
    assert (summary.best_step, summary.best_dev_ndcg) == (10, 0.9)
    best, final = (Path(summary.folder) / name / "model.safetensors" for name in ("best_model", "final_model"))
    assert not same_weights(best, final)


def test_the_dev_score_logged_is_that_of_the_saved_model(small_recipe: Path, dev_folder: Path) -> None:
    from ragcun_cli.data.collection import read_collection
    from ragcun_cli.evaluate.scoring import evaluate

    summary = train_arm(load(small_recipe))
    encoder = IsotropicGaussianEncoder.from_pretrained(summary.model)
    scored = evaluate(encoder.encode, read_collection(dev_folder))
    assert scored.metrics["ndcg@10"] == pytest.approx(summary.best_dev_ndcg, abs=1e-9)


def test_without_a_dev_set_the_final_model_stands(small_recipe: Path) -> None:
    summary = train_arm(load(small_recipe, "data.dev=null", "max_steps=3"))
    assert summary.best_step is None
    assert Path(summary.model).name == "final_model"


ARMS = {
    "baseline": ["lambda_isotropy=0", "lambda_reg=0"],
    "isotropy": ["lambda_isotropy=1"],
    "frozen": ["freeze_base=true"],
}


def test_arms_of_one_seed_start_from_identical_weights_and_see_identical_batches(
    small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[list[str]]] = {}
    real = loop.embed

    def spy(model: object, make_input: object, batch: object) -> object:
        seen.setdefault(current, []).append(batch.texts())
        return real(model, make_input, batch)

    monkeypatch.setattr(loop, "embed", spy)
    weights = {}
    for current, changes in {**ARMS, "another seed": ["seed=1"]}.items():
        recipe = load(small_recipe, f"output_dir='{tmp_path / current}'", *changes)
        train_arm(recipe)
        environment = json.loads((tmp_path / current / "environment.json").read_text())
        weights[current] = environment["model"]["initial_weights_sha256"]
    assert weights["baseline"] == weights["isotropy"] == weights["frozen"] != weights["another seed"]
    assert len(seen["baseline"]) == 15
    assert seen["baseline"] == seen["isotropy"] == seen["frozen"] != seen["another seed"]


def test_the_regulariser_changes_no_other_random_number(small_recipe: Path, tmp_path: Path) -> None:
    """With its weight nearly zero, SIGReg leaves the first steps' contrastive losses as they were, dropout included."""
    contrastive = []
    for number, weight in enumerate((0, 1e-30)):
        output = f"output_dir='{tmp_path / str(number)}'"
        summary = train_arm(load(small_recipe, f"lambda_isotropy={weight}", "lambda_reg=0", "max_steps=5", output))
        contrastive.append([line["contrastive"] for line in metrics(summary.folder) if "loss" in line])
    assert contrastive[0] == contrastive[1]


def test_the_same_recipe_gives_the_same_run(small_recipe: Path, tmp_path: Path) -> None:
    folders = [train_arm(load(small_recipe, f"output_dir='{tmp_path / name}'")).folder for name in "ab"]
    assert metrics(folders[0]) == metrics(folders[1])
    one, other = (Path(folder) / "final_model" / "model.safetensors" for folder in folders)
    assert same_weights(one, other)


def test_a_frozen_encoder_does_not_change_and_its_head_does(small_recipe: Path, tiny_bert: Path) -> None:
    summary = train_arm(load(small_recipe, "freeze_base=true"))
    trained = IsotropicGaussianEncoder.from_pretrained(summary.model)
    start = IsotropicGaussianEncoder.from_base(str(tiny_bert), output_dim=24)
    for name, tensor in start.network.state_dict().items():
        assert torch.equal(trained.network.state_dict()[name], tensor), name
    assert not torch.equal(trained.head.skip.weight, start.head.skip.weight)


@pytest.mark.parametrize("calibrated", [3, 128])  # the scale is measured on some of the texts, or on all
def test_a_frozen_encoder_passes_each_text_once(
    small_recipe: Path, monkeypatch: pytest.MonkeyPatch, triples_file: Path, dev_folder: Path, calibrated: int
) -> None:
    """Over the measurement of the scale, all epochs and the dev scores."""
    passed: Counter[tuple[int, ...]] = Counter()
    real = IsotropicGaussianEncoder._pool_chunk

    def counting(self: IsotropicGaussianEncoder, token_ids: list[list[int]]) -> torch.Tensor:
        passed.update(map(tuple, token_ids))
        return real(self, token_ids)

    monkeypatch.setattr(arm, "CALIBRATION_TRIPLES", calibrated)
    monkeypatch.setattr(IsotropicGaussianEncoder, "_pool_chunk", counting)
    train_arm(load(small_recipe, "freeze_base=true", "max_steps=null", "epochs=3"))
    triples = [json.loads(line) for line in triples_file.read_text().splitlines()]
    dev = [json.loads(line) for name in ("corpus", "queries") for line in (dev_folder / f"{name}.jsonl").open()]
    expected = {text for triple in triples for text in triple.values()}
    expected |= {f"{record.get('title', '')} {record['text']}".strip() for record in dev}
    assert sum(passed.values()) == len(expected)


def test_frozen_training_equals_training_through_the_frozen_encoder(small_recipe: Path, tmp_path: Path) -> None:
    """The cached features are what the encoder would give: the head's losses are the same to float32."""
    cached = train_arm(load(small_recipe, "freeze_base=true", f"output_dir='{tmp_path / 'cached'}'", "max_steps=5"))
    recipe = load(small_recipe, "freeze_base=true", f"output_dir='{tmp_path / 'direct'}'", "max_steps=5")
    training = prepared(recipe)
    arm.begin_run(training.folder, recipe, {})
    training.make_input = arm.from_tokens(training.encoder)
    loop.fit(training)
    for one, other in zip(metrics(cached.folder), metrics(recipe.output_dir), strict=True):
        if "loss" in one:
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


def test_training_starts_at_unit_standard_deviation(small_recipe: Path) -> None:
    training = prepared(load(small_recipe))
    embeddings = training.encoder.encode([text for each in training.triples for text in (each.query, each.positive)])
    assert np.sqrt(embeddings.var(axis=0).mean()) == pytest.approx(1, abs=0.05)


def prepared(recipe: Recipe) -> loop.Training:
    folder = RunFolder.of(recipe)
    data = arm._read_data(recipe)
    plan = make_plan(recipe, data.triples, find_hardware())
    return arm._prepare(recipe, folder, data, plan, find_hardware())


def test_dropout_acts_while_training_and_not_in_a_frozen_encoder(
    small_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    real = loop.embed

    def spy(model: torch.nn.Module, *rest: object) -> object:
        modes.append((model.network.training, model.head.training))
        return real(model, *rest)

    monkeypatch.setattr(loop, "embed", spy)
    train_arm(load(small_recipe, "max_steps=6", "eval_every=2"))
    assert set(modes) == {(True, True)}
    modes.clear()
    train_arm(load(small_recipe, "max_steps=6", "eval_every=2", "freeze_base=true"), overwrite=True)
    assert set(modes) == {(False, True)}


def test_sigreg_takes_new_directions_at_each_batch(small_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ragcun_cli.losses import objective

    asked = []
    real = objective.random_directions
    monkeypatch.setattr(objective, "random_directions", lambda *rest: asked.append(rest[-1]) or real(*rest))
    train_arm(load(small_recipe, "gradient_accumulation_steps=2", "max_steps=5"))
    assert asked == [number for number in range(10) for _ in ("queries", "passages")]


def test_gradients_are_averaged_over_accumulated_batches_and_clipped(
    small_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load(small_recipe, "freeze_base=true", "gradient_accumulation_steps=2", "max_gradient_norm=0.01")
    by_hand = prepared(recipe)
    for number in range(2):
        terms = by_hand.objective(loop.embed(by_hand.model, by_hand.make_input, by_hand.batches.batch(number)), number)
        (terms.loss / 2).backward()
    expected = torch.stack([each.grad.norm() for each in loop._trainable(by_hand)]).norm().item()

    applied = []
    real = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, *rest: object) -> object:
        gradients = [each.grad.norm() for group in self.param_groups for each in group["params"]]
        applied.append(torch.stack(gradients).norm().item())
        return real(self, *rest)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    summary = train_arm(recipe.model_copy(update={"max_steps": 1}))
    assert metrics(summary.folder)[0]["gradient_norm"] == pytest.approx(expected, rel=1e-4)
    assert expected > 0.02
    assert applied == [pytest.approx(0.01, rel=1e-3)]


def test_weight_decay_is_for_matrices_and_rates_are_apart(small_recipe: Path) -> None:
    recipe = load(small_recipe, "weight_decay=0.3", "learn_temperature=true")
    groups = prepared(recipe).optimiser.param_groups
    for group in groups:
        matrices = {parameter.ndim >= 2 for parameter in group["params"]}
        assert matrices == {group["weight_decay"] == 0.3}
        assert group["full_rate"] == (1e-3 if group["part"] == "base" else 5e-4)
    assert {group["part"] for group in groups} == {"base", "projection"}
    assert any(parameter.ndim == 0 for group in groups for parameter in group["params"])  # the temperature


def test_a_gradient_that_is_not_finite_stops_the_run(small_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import Accelerator

    monkeypatch.setattr(Accelerator, "clip_grad_norm_", lambda *_: torch.tensor(math.inf))
    with pytest.raises(RagcunError, match="the gradient is inf at step 1"):
        train_arm(load(small_recipe))


def test_accumulation_takes_several_batches_into_one_step(small_recipe: Path) -> None:
    recipe = load(small_recipe, "gradient_accumulation_steps=3", "max_steps=null", "epochs=2")
    summary = train_arm(recipe)
    assert summary.steps == 6  # 80 triples: ten batches, three steps an epoch
    data = arm._read_data(recipe)
    plan = make_plan(recipe, data.triples, find_hardware())
    numbers = [loop._batch_number(step, part, plan, recipe) for step in range(6) for part in range(3)]
    assert numbers == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18]
    epochs = [BatchSequence(data.triples, 8, 0).batch(number).rows for number in numbers[:9]]
    assert len({row for rows in epochs for row in rows}) == 72


def test_a_loss_that_is_not_finite_stops_the_run(small_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter(range(100))
    real = loop._require_finite

    def poisoned(loss: torch.Tensor, step: int, rows: list[int]) -> None:
        real(loss * (math.nan if next(steps) == 6 else 1), step, rows)

    monkeypatch.setattr(loop, "_require_finite", poisoned)
    recipe = load(small_recipe)
    with pytest.raises(RagcunError, match="the loss is nan at step 7; the batch's rows"):
        train_arm(recipe)
    status = json.loads((Path(recipe.output_dir) / "status.json").read_text())
    assert (status["state"], status["step"]) == ("failed", 6)
    assert (Path(recipe.output_dir) / "checkpoints" / "step-00000004").is_dir()


def test_a_dry_run_reads_everything_and_writes_nothing(small_recipe: Path) -> None:
    recipe = load(small_recipe)
    plan = plan_arm(recipe)
    assert plan["plan"]["total_steps"] == 15
    assert plan["model"]["head_parameters"] == 32 * 24 + 32 * 28 + 28 + 28 * 24 + 24
    assert not Path(recipe.output_dir).exists()


def test_more_tokens_than_the_encoder_reads(small_recipe: Path) -> None:
    with pytest.raises(UsageError, match=r"max_length: 512 is more than .* reads \(128 tokens\)"):
        plan_arm(load(small_recipe, "max_length=512"))


def test_gradient_checkpointing_is_refused_where_the_library_has_none(small_recipe: Path, tiny_mpnet: Path) -> None:
    with pytest.raises(UsageError, match="gradient_checkpointing: transformers has none"):
        plan_arm(load(small_recipe, "gradient_checkpointing=true", f"base_model={tiny_mpnet}"))


def test_gradient_checkpointing_changes_no_gradient(small_recipe: Path, tmp_path: Path) -> None:
    logged = []
    for flag in ("false", "true"):
        output = f"output_dir='{tmp_path / flag}'"
        summary = train_arm(load(small_recipe, f"gradient_checkpointing={flag}", "max_steps=4", output))
        logged.append([line["gradient_norm"] for line in metrics(summary.folder) if "loss" in line])
    assert logged[0] == pytest.approx(logged[1], rel=1e-5)
