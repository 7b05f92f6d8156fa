"""What a run says of itself: figures, trackers, and stopping when the dev score no longer rises."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from ragcun_cli.environment import read_dotenv
from ragcun_cli.errors import EnvironmentUnfit, UsageError
from ragcun_cli.evaluate.scoring import DevScores
from ragcun_cli.train import loop, trackers
from ragcun_cli.train.arm import train_arm
from ragcun_cli.train.precision import Hardware
from ragcun_cli.train.speed import Speedometer, peak_flops, training_flops_per_token
from tests.training_runs import load, stopped_at


def lines(folder: str, name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (Path(folder) / name).read_text().splitlines()]


def test_the_geometry_of_each_logged_step_and_the_null_line(small_recipe: Path) -> None:
    summary = train_arm(load(small_recipe, "log_every=4"))
    logged = [line for line in lines(summary.folder, "metrics.jsonl") if "loss" in line]
    assert [line["step"] for line in logged] == [1, 4, 8, 12, 15]
    for line in logged:
        assert line["isotropy_null"] == pytest.approx(1.0525, abs=1e-4)
        for view in ("queries", "positives"):
            assert -1 <= line[f"mean_cosine_{view}"] <= 1
            assert line[f"isoscore_{view}"] is None or math.isfinite(line[f"isoscore_{view}"])


def test_speed_stands_apart_from_what_a_second_run_must_equal(small_recipe: Path) -> None:
    summary = train_arm(load(small_recipe, "log_every=4"))
    speed = lines(summary.folder, "speed.jsonl")
    assert [line["step"] for line in speed] == [1, 4, 8, 12, 15]
    for line in speed:
        assert line["triples_per_second"] > 0
        # 8 triples of a query and two passages, some 120 tokens
        assert 60 < line["tokens_per_second"] / line["triples_per_second"] < 180
        assert line["peak_memory_bytes"] > 1e8
        assert line["model_flop_utilisation"] is None  # of a CPU it is not known
    for line in lines(summary.folder, "metrics.jsonl"):
        assert not {"triples_per_second", "tokens_per_second", "peak_memory_bytes"} & line.keys()


def test_model_flops(tiny_bert: Path) -> None:
    from ragcun_cli.model import IsotropicGaussianEncoder

    network = IsotropicGaussianEncoder.from_base(str(tiny_bert), output_dim=8).network
    layers = 2 * (4 * (32 * 32 + 32) + 2 * 32 * 64 + 32 + 64 + 4 * 32) + 2 * 32  # and the embeddings' LayerNorm
    assert training_flops_per_token(network, 50) == 6 * layers + 12 * 2 * 32 * 50
    assert peak_flops(Hardware("cuda", "NVIDIA A100-SXM4-80GB", (8, 0))) == 312e12
    assert peak_flops(Hardware("cuda", "Tesla T4", (7, 5))) == 65e12
    assert peak_flops(Hardware("cuda", "NVIDIA A10G", (8, 6))) == 70e12
    assert peak_flops(Hardware("cuda", "NVIDIA H100 PCIe", (9, 0))) == 756e12
    for unknown in ("NVIDIA of tomorrow", "NVIDIA L40", "NVIDIA RTX A1000"):
        assert peak_flops(Hardware("cuda", unknown, (8, 9))) is None
    assert peak_flops(Hardware("cpu", "CPU", None)) is None


def test_utilisation_is_that_of_each_gpu() -> None:
    """Eight GPUs have eight times the peak; tokens are counted over all of them."""
    a100 = Hardware("cuda", "NVIDIA A100-SXM4-80GB", (8, 0))
    for processes in (1, 8):
        speed = Speedometer(a100, flops_per_token=1e9, processes=processes)
        speed.count(triples=10, tokens=156_000 * processes, seconds=1.0)
        assert speed.read()["model_flop_utilisation"] == 0.5


def test_the_first_line_says_negatives_padding_and_cut_texts(
    small_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = train_arm(load(small_recipe, "max_steps=2", "max_length=32"))
    said = capsys.readouterr().err
    assert "15 negatives per query, 0.0 % of the computed tokens are padding, each batch in one pass" in said
    plan = json.loads((Path(summary.folder) / "environment.json").read_text())["plan"]
    assert said.count("texts are longer than 32 tokens and are truncated.") == 1
    assert f"{plan['texts_cut']} texts are longer" in said
    assert 80 <= plan["texts_cut"] <= 160  # the passages
    assert plan["chunk"].endswith("fits whole")


def with_scores(monkeypatch: pytest.MonkeyPatch, *figures: float) -> None:
    left = iter(figures)
    monkeypatch.setattr(
        loop,
        "score_in_memory",
        lambda *_: DevScores({"ndcg@10": next(left), "recall@100": 0, "map": 0, "mrr": 0}, None),
    )


def test_early_stopping_waits_for_so_many_scores_without_a_better_one(
    small_recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_scores(monkeypatch, 0.5, 0.4, 0.6, 0.6, 0.3, 0.9)
    summary = train_arm(load(small_recipe, "eval_every=2", "early_stopping=2"))
    assert (summary.steps, summary.best_step, summary.best_dev_ndcg) == (10, 6, 0.6)
    assert "stopped at step 10: no better score in the last 2" in capsys.readouterr().err
    status = json.loads((Path(summary.folder) / "status.json").read_text())
    assert status["state"] == "finished"
    assert "no better score" in status["exit_reason"]
    assert (Path(summary.folder) / "final_model").is_dir()


def test_patience_survives_a_resume(small_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load(small_recipe, "eval_every=2", "save_every=2", "early_stopping=3")
    # The checkpoint of step 6 was saved before the score of step 6, which is therefore made again.
    with_scores(monkeypatch, 0.5, 0.4, 0.4, 0.4, 0.3, 0.9)
    with stopped_at(6):
        train_arm(recipe)
    assert train_arm(recipe, resume=True).steps == 8


def test_tensorboard_gets_every_figure(small_recipe: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    summary = train_arm(load(small_recipe, "trackers=[tensorboard]", "log_every=5", "max_steps=10"))
    events = EventAccumulator(str(Path(summary.folder) / "trackers" / "ragcun"))
    events.Reload()
    logged = [line for line in lines(summary.folder, "metrics.jsonl") if "loss" in line]
    shown = [(event.step, pytest.approx(event.value, rel=1e-5)) for event in events.Scalars("loss")]
    assert [(line["step"], line["loss"]) for line in logged] == shown
    names = set(events.Tags()["scalars"])
    assert {"contrastive", "isotropy", "variance", "learning_rate_base", "gradient_norm", "triples_per_second"} <= names
    assert {"tokens_per_second", "peak_memory_bytes", "isoscore_queries", "mean_cosine_positives"} <= names
    assert {"dev/ndcg@10", "isotropy_null"} <= names


@pytest.mark.slow
def test_wandb_gets_the_run_under_its_name_and_goes_on_with_it(
    small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real wandb, writing to disk instead of to its server."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    recipe = load(small_recipe, "trackers=[wandb]", "log_every=5", "save_every=5")
    with stopped_at(7):
        train_arm(recipe)
    run_id = json.loads((Path(recipe.output_dir) / "environment.json").read_text())["run_id"]
    train_arm(recipe, resume=True)
    runs = list((Path(recipe.output_dir) / "trackers" / "wandb").glob(f"offline-run-*-{run_id}"))
    assert runs
    assert all(list(run.glob("*.wandb")) for run in runs)


def test_a_tracker_that_is_not_installed_is_refused_before_the_first_text(
    small_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    recipe = load(small_recipe, "trackers=[wandb]")
    with pytest.raises(EnvironmentUnfit, match="trackers: wandb is not installed") as caught:
        train_arm(recipe)
    assert "pip install 'ragcun[wandb]'" in caught.value.hint
    assert not Path(recipe.output_dir).exists()


def test_wandb_without_a_key_is_refused_before_the_first_text(
    small_recipe: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    recipe = load(small_recipe, "trackers=[wandb]")
    with pytest.raises(EnvironmentUnfit, match="wandb has no API key"):
        train_arm(recipe)
    monkeypatch.setenv("WANDB_MODE", "offlin")
    with pytest.raises(EnvironmentUnfit, match="WANDB_MODE: offlin is not one of"):
        train_arm(recipe)
    assert not Path(recipe.output_dir).exists()
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password key\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.delenv("WANDB_MODE")
    trackers.require_trackers(recipe)


def test_a_tracker_that_does_not_open_is_named(small_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import Accelerator

    def broken(*_: object, **__: object) -> None:
        raise ValueError("no room for events")

    monkeypatch.setattr(Accelerator, "init_trackers", broken)
    recipe = load(small_recipe, "trackers=[tensorboard]")
    with pytest.raises(EnvironmentUnfit, match="trackers: no room for events"):
        train_arm(recipe)
    assert json.loads((Path(recipe.output_dir) / "status.json").read_text())["state"] == "failed"


def test_a_dotenv_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"\.env: not UTF-8 text"):
        read_dotenv(tmp_path)


def test_keys_come_from_dotenv_unless_they_are_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text(
        "# mine\nexport WANDB_API_KEY='from the file'\nHF_TOKEN=file\nPATH=/evil\nDATABASE=x\n"
    )
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HF_TOKEN", "from the environment")
    path = os.environ["PATH"]
    monkeypatch.setattr(os, "environ", dict(os.environ))
    read_dotenv(tmp_path)
    assert os.environ["WANDB_API_KEY"] == "from the file"
    assert os.environ["HF_TOKEN"] == "from the environment"
    assert os.environ["PATH"] == path
    assert "DATABASE" not in os.environ
    read_dotenv(tmp_path / "nowhere")
