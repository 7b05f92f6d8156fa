"""Training one arm on a small real encoder: what it writes, what arms share, and that a frozen one is frozen."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ragcun_cli.data.batches import TripleBatch
from ragcun_cli.errors import EnvironmentUnfit, ModelError, RagcunError, UsageError
from ragcun_cli.evaluate.scoring import DevScores
from ragcun_cli.losses.objective import Objective, ObjectiveTerms
from ragcun_cli.model.folder import load_encoder
from ragcun_cli.recipe.loading import load_recipe
from ragcun_cli.train import loop, step
from ragcun_cli.train.arm import plan_arm, train_arm
from tests.conftest import RunCommand
from tests.training_runs import load, metrics, prepared


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
        "checkpoint_epoch_1", "checkpoint_epoch_2", "best_model", "final_model", "modules.json",
        "config_sentence_transformers.json",
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

    def scored(*_: object) -> DevScores:
        figure = next(scores)
        return DevScores({"ndcg@10": figure, "recall@100": 0, "map": 0, "mrr": 0}, None)

    monkeypatch.setattr(loop, "score_in_memory", scored)
    summary = train_arm(load(small_recipe))
    assert (summary.best_step, summary.best_dev_ndcg) == (10, 0.9)
    best, final = (Path(summary.folder) / name / "model.safetensors" for name in ("best_model", "final_model"))
    assert not same_weights(best, final)


def test_the_dev_score_logged_is_that_of_the_saved_model(small_recipe: Path, dev_folder: Path) -> None:
    from ragcun_cli.data.collection import read_collection
    from ragcun_cli.evaluate.scoring import score_in_memory

    summary = train_arm(load(small_recipe))
    encoder = load_encoder(summary.model)
    scored = score_in_memory(encoder.encode, read_collection(dev_folder))
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
    seen: dict[str, list[list[int]]] = {}
    real = step.split_views

    def spy(embeddings: torch.Tensor, batch: TripleBatch) -> object:
        seen.setdefault(current, []).append(batch.texts().tolist())
        return real(embeddings, batch)

    monkeypatch.setattr(step, "split_views", spy)
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


def test_training_starts_at_unit_standard_deviation(small_recipe: Path, triples_file: Path) -> None:
    training = prepared(load(small_recipe))
    texts = [line for line in triples_file.read_text().splitlines() for line in list(json.loads(line).values())[:2]]
    embeddings = training.encoder.encode(texts)
    assert np.sqrt(embeddings.var(axis=0).mean()) == pytest.approx(1, abs=0.05)


def test_sigreg_takes_new_directions_at_each_batch(small_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ragcun_cli.losses import objective

    asked = []
    real = objective.random_directions
    monkeypatch.setattr(objective, "random_directions", lambda *rest: asked.append(rest[-1]) or real(*rest))
    train_arm(load(small_recipe, "gradient_accumulation_steps=2", "max_steps=5"))
    assert asked == list(range(10))  # the same for queries and passages of a batch


def test_gradients_are_averaged_over_accumulated_batches_and_clipped(
    small_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load(small_recipe, "freeze_base=true", "gradient_accumulation_steps=2", "max_gradient_norm=0.01")
    by_hand = prepared(recipe)
    for number in range(2):
        batch = by_hand.batches.batch(number)
        embeddings = by_hand.model(by_hand.make_input(batch.texts()))
        (by_hand.objective(step.split_views(embeddings, batch), number).loss / 2).backward()
    expected = torch.stack([each.grad.norm() for each in by_hand.trainable()]).norm().item()

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
    training = prepared(recipe)
    numbers = [training.batch_number(number, part) for number in range(6) for part in range(3)]
    assert numbers == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18]
    epochs = [training.batches.batch(number).rows for number in numbers[:9]]
    assert len({row for rows in epochs for row in rows}) == 72


def test_a_loss_that_is_not_finite_stops_the_run(small_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter(range(100))
    real = Objective.forward

    def poisoned(self: Objective, *rest: object) -> ObjectiveTerms:
        terms = real(self, *rest)
        return dataclasses.replace(terms, loss=terms.loss * (math.nan if next(steps) == 6 else 1))

    monkeypatch.setattr(Objective, "forward", poisoned)
    recipe = load(small_recipe)
    rows = ", ".join(map(str, prepared(recipe).batches.batch(6).rows.tolist()))
    with pytest.raises(RagcunError, match=f"the loss is nan at step 7; rows of this batch .*: {rows}$"):
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
    with pytest.raises(UsageError, match=r"max_length: 512 is more than .* accepts \(128 tokens\)"):
        plan_arm(load(small_recipe, "max_length=512"))


@pytest.mark.parametrize("family", ["tiny_bert", "tiny_mpnet"])
def test_gradient_checkpointing_changes_no_gradient(
    small_recipe: Path, tmp_path: Path, family: str, request: pytest.FixtureRequest
) -> None:
    base, logged = f"base_model={request.getfixturevalue(family)}", []
    for flag in ("false", "true"):
        output = f"output_dir='{tmp_path / flag}'"
        summary = train_arm(load(small_recipe, f"gradient_checkpointing={flag}", "max_steps=4", output, base))
        logged.append([line["gradient_norm"] for line in metrics(summary.folder) if "loss" in line])
    assert logged[0] == pytest.approx(logged[1], rel=1e-5)


def test_a_tokenizer_that_gives_tokens_the_model_does_not_know(
    small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many tokens as the model knows, but one of them numbered beyond."""
    from ragcun_cli.data.token_cache import Tokenised
    from ragcun_cli.model import tokenizer

    monkeypatch.setenv("RAGCUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tokenizer, "tokenise", lambda _, texts, __: Tokenised([[5, 305]] * len(texts), 0))
    for frozen in ("false", "true"):
        recipe = load(small_recipe, f"freeze_base={frozen}")
        with pytest.raises(ModelError, match="its tokenizer gives token 305, but the model knows only 305"):
            train_arm(recipe)
        assert not Path(recipe.output_dir).exists()


def test_fp16_that_overflows_for_ever_stops_the_run(small_recipe: Path) -> None:
    """A loss scaler skips a step now and then; the run ends when it skips every one."""
    training = prepared(load(small_recipe))
    training.accelerator.scaler = object()
    training.folder.root.mkdir()
    for _ in range(step.OVERFLOWS_ALLOWED):
        step._require_finite_gradient(training, math.inf)
    step._require_finite_gradient(training, 1.0)
    for _ in range(step.OVERFLOWS_ALLOWED):
        step._require_finite_gradient(training, math.nan)
    with pytest.raises(RagcunError, match="the gradient is nan in 21 steps in a row at step 1"):
        step._require_finite_gradient(training, math.nan)
    diverged = json.loads((training.folder.root / "diverged.json").read_text())
    assert diverged["rows"] == training.batches.batch(0).rows.tolist()


def test_memory_that_runs_out_where_no_chunk_helps_is_named(
    small_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.optim.AdamW, "step", no_room)
    recipe = load(small_recipe)
    with pytest.raises(EnvironmentUnfit, match="out of memory at step 1"):
        train_arm(recipe)
    assert json.loads((Path(recipe.output_dir) / "status.json").read_text())["state"] == "failed"


def test_a_full_disk_is_named_and_leaves_no_half_model(small_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    recipe = load(small_recipe)
    with pytest.raises(EnvironmentUnfit, match="the disk is full") as caught:
        train_arm(recipe)
    assert "continue with --resume" in caught.value.hint
    assert not list(Path(recipe.output_dir).rglob("*.safetensors"))
    assert json.loads((Path(recipe.output_dir) / "status.json").read_text())["best_step"] is None


def test_an_output_folder_below_a_file_is_refused_before_the_first_text(small_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"output_dir: .*file is a file"):
        train_arm(load(small_recipe, f"output_dir={tmp_path / 'file' / 'run'}"))


@pytest.mark.parametrize(
    ("kept", "dev", "folders"),
    [
        ("all", True, ["best_model", "checkpoint_epoch_1", "checkpoint_epoch_2", "final_model"]),
        ("best", True, ["best_model"]),
        ("best", False, ["final_model"]),
        ("final", True, ["final_model"]),
        ("none", True, []),
    ],
)
def test_the_models_that_are_kept(
    small_recipe: Path, kept: str, dev: bool, folders: list[str], ragcun: RunCommand
) -> None:
    settings = ["max_steps=null", "eval_every=null", "save_every=null", f"keep_models={kept}"]
    settings += [] if dev else ["data.dev=null"]
    summary = train_arm(load(small_recipe, *settings))
    folder = Path(summary.folder)
    assert sorted(path.name for path in folder.iterdir() if (path / "config.json").is_file()) == folders
    assert Path(summary.model).name == (folders[0] if folders else "")
    assert (folder / "checkpoints").is_dir() == (kept != "none")
    assert (summary.best_dev_ndcg is not None) == dev  # scores stay, whatever models do
    again = ragcun("train", "-r", small_recipe, *(part for each in settings for part in ("--set", each)), "--resume")
    assert again.exit_code == 0
    assert "this run is already finished; nothing" in again.stderr
    assert ("No model was kept" in again.stderr) == (kept == "none")


def test_a_run_folder_is_a_model_for_sentence_transformers(small_recipe: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["w1 w2 w3", "w4 " * 30]
    for number, settings in enumerate((["max_steps=5"], ["max_steps=5", "data.dev=null"])):
        summary = train_arm(load(small_recipe, *settings, f"output_dir='{tmp_path / str(number)}'"))
        loaded = SentenceTransformer(summary.folder, device="cpu")
        assert loaded.similarity_fn_name == "euclidean"
        ours = load_encoder(summary.model).encode(texts)
        np.testing.assert_allclose(loaded.encode(texts), ours, atol=1e-5)


def test_a_finished_run_is_not_said_to_go_on(small_recipe: Path, ragcun: RunCommand) -> None:
    assert ragcun("train", "-r", small_recipe, "--set", "max_steps=1").exit_code == 0
    refused = ragcun("train", "-r", small_recipe, "--set", "max_steps=1")
    said = " ".join(refused.stderr.replace("│", "").split())
    assert refused.exit_code == 2
    assert "Nothing is left to train. --overwrite deletes it" in said
    assert "--resume" not in said
