"""A frozen encoder is frozen: it passes each text once, for everybody, and only the head trains."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from ragcun_cli.data.tokens import TokenBatch
from ragcun_cli.model import IsotropicGaussianEncoder, feature_store
from ragcun_cli.model.folder import load_encoder
from ragcun_cli.train import arm, loop, step
from ragcun_cli.train.arm import train_arm
from ragcun_cli.train.training import Training
from tests.training_runs import load, metrics, prepared


def test_a_frozen_encoder_does_not_change_and_its_head_does(small_recipe: Path, tiny_bert: Path) -> None:
    summary = train_arm(load(small_recipe, "freeze_base=true"))
    trained = load_encoder(summary.model)
    start = IsotropicGaussianEncoder.from_base(str(tiny_bert), output_dim=24)
    for name, tensor in start.network.state_dict().items():
        assert torch.equal(trained.network.state_dict()[name], tensor), name
    assert not torch.equal(trained.head.skip.weight, start.head.skip.weight)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Counter[tuple[int, ...]]:
    """How often each text passes the encoder, beginning with an empty cache."""
    passed: Counter[tuple[int, ...]] = Counter()
    real = IsotropicGaussianEncoder.pool

    def counting(self: IsotropicGaussianEncoder, batch: TokenBatch) -> torch.Tensor:
        passed.update(tuple(ids.tolist()) for ids in np.split(batch.ids, np.cumsum(batch.lengths)[:-1]))
        return real(self, batch)

    monkeypatch.setattr(IsotropicGaussianEncoder, "pool", counting)
    monkeypatch.setenv("RAGCUN_CACHE", str(tmp_path / "cache"))
    return passed


def all_texts(triples_file: Path, dev_folder: Path) -> set[str]:
    triples = [json.loads(line) for line in triples_file.read_text().splitlines()]
    dev = [json.loads(line) for name in ("corpus", "queries") for line in (dev_folder / f"{name}.jsonl").open()]
    expected = {text for triple in triples for text in triple.values()}
    return expected | {f"{record.get('title', '')} {record['text']}".strip() for record in dev}


def test_a_frozen_encoder_passes_each_text_once(
    small_recipe: Path, tmp_path: Path, passes: Counter[tuple[int, ...]], triples_file: Path, dev_folder: Path
) -> None:
    """Over all epochs and dev scores, other arms, other seeds, and the evaluation of what was trained."""
    from ragcun_cli.evaluate.datasets import find_datasets
    from ragcun_cli.evaluate.evaluator import ModelToScore
    from ragcun_cli.evaluate.runner import evaluate_models

    frozen = ["freeze_base=true", "max_steps=null", "epochs=3", "max_length=128"]
    summary = train_arm(load(small_recipe, *frozen))
    expected = all_texts(triples_file, dev_folder)
    assert sum(passes.values()) == len(expected)
    train_arm(load(small_recipe, *frozen, "seed=1", f"output_dir='{tmp_path / 'seed'}'"))
    train_arm(load(small_recipe, *frozen, "lambda_isotropy=0", f"output_dir='{tmp_path / 'arm'}'"))
    evaluate_models(
        [ModelToScore(summary.folder)], find_datasets([str(dev_folder)], tmp_path, "dev")[0], tmp_path / "results"
    )
    assert sum(passes.values()) == len(expected)
    train_arm(load(small_recipe, *frozen, "max_length=32", f"output_dir='{tmp_path / 'shorter'}'"))
    assert sum(passes.values()) == 2 * len(expected)


def test_an_interrupted_encoding_goes_on_at_the_shard(
    small_recipe: Path, monkeypatch: pytest.MonkeyPatch, passes: Counter[tuple[int, ...]],
    triples_file: Path, dev_folder: Path,
) -> None:  # fmt: skip
    monkeypatch.setitem(feature_store.BLOCK_TEXTS, "cpu", 25)
    real, blocks = IsotropicGaussianEncoder.features_of_tokens, iter(range(100))

    def stops_in_the_third_shard(self: IsotropicGaussianEncoder, *rest: object) -> torch.Tensor:
        if next(blocks) == 9:  # seven for the head's scale, then one each
            raise KeyboardInterrupt
        return real(self, *rest)

    recipe = load(small_recipe, "freeze_base=true", "max_steps=null", "max_length=128")
    with monkeypatch.context() as patch:
        patch.setattr(IsotropicGaussianEncoder, "features_of_tokens", stops_in_the_third_shard)
        with pytest.raises(KeyboardInterrupt):
            train_arm(recipe)
    assert sum(passes.values()) == 160 + 50
    assert not Path(recipe.output_dir).exists()  # the same command goes on
    train_arm(recipe)
    assert sum(passes.values()) == len(all_texts(triples_file, dev_folder))


def test_frozen_training_equals_training_through_the_frozen_encoder(small_recipe: Path, tmp_path: Path) -> None:
    """The cached features are what the encoder would give: the head's losses are the same to float32."""
    recipe = load(small_recipe, "freeze_base=true", f"output_dir='{tmp_path / 'direct'}'", "max_steps=5")
    cached = train_arm(load(small_recipe, "freeze_base=true", f"output_dir='{tmp_path / 'cached'}'", "max_steps=5"))
    training = prepared(recipe)
    through = load(small_recipe, f"output_dir='{tmp_path / 'direct'}'", "max_steps=5")
    training.make_input = prepared(through).make_input
    arm.begin_run(training.folder, recipe, {})
    loop.fit(training)
    for one, other in zip(metrics(cached.folder), metrics(recipe.output_dir), strict=True):
        if "loss" in one:
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


def test_dropout_acts_while_training_and_not_in_a_frozen_encoder(
    small_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    real = step._gradients

    def spy(training: Training) -> object:
        found = real(training)
        modes.append((training.encoder.network.training, training.encoder.head.training))
        return found

    monkeypatch.setattr(step, "_gradients", spy)
    train_arm(load(small_recipe, "max_steps=6", "eval_every=2"))
    assert set(modes) == {(True, True)}
    modes.clear()
    train_arm(load(small_recipe, "max_steps=6", "eval_every=2", "freeze_base=true"), overwrite=True)
    assert set(modes) == {(False, True)}
