"""The command's loop: several models, datasets, schemes and processes."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ragcun_cli.data.registry import PUBLIC
from ragcun_cli.errors import EnvironmentUnfit, UsageError
from ragcun_cli.evaluate import evaluator
from ragcun_cli.evaluate.datasets import Dataset, find_datasets
from ragcun_cli.evaluate.evaluator import EvaluationSettings, ModelToScore
from ragcun_cli.evaluate.runner import averages, evaluate_models, measure_models
from ragcun_cli.evaluate.scoring import Scheme
from ragcun_cli.evaluate.transform_names import parse_transform
from ragcun_cli.evaluate.workers import Workers
from ragcun_cli.results.dataset_result import DatasetResult
from tests.results.test_dataset_result import TEXTS
from tests.results.test_dataset_result import result as scored_result
from tests.tiny_models import write_collection, write_triples


@pytest.fixture
def datasets(tmp_path: Path) -> list[Dataset]:
    names = [str(write_collection(tmp_path / f"task{number}", 30, seed=number)) for number in range(2)]
    return find_datasets(names, tmp_path, None)[0]


@pytest.mark.slow
def test_two_processes_give_what_one_gives(
    datasets: list[Dataset], tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = {}
    for processes in (1, 2):
        monkeypatch.setenv("RAGCUN_CACHE", str(tmp_path / f"cache{processes}"))
        root = tmp_path / f"results{processes}"
        settings = EvaluationSettings(
            schemes=(Scheme(), Scheme("cosine", parse_transform("whiten:0.5"))), processes=processes
        )
        evaluate_models([ModelToScore(str(tiny_bert))], datasets, root, settings)
        results[processes] = {
            path.relative_to(root).as_posix(): gzip.decompress(path.read_bytes()) for path in root.glob("*/*.run.gz")
        }
        written = json.loads((root / "tiny-bert" / "task0.json").read_text())
        assert written["search"]["processes"] == processes
    assert results[1] == results[2]
    assert len(results[1]) == 4


def _double(prepared: int, number: int) -> int:
    return prepared * number


def _prepare(base: int, device: str) -> int:
    assert device == "cpu"
    return base


def _fail(prepared: int, how: str) -> None:
    if how == "usage":
        raise UsageError("wrong", "mend it")
    if how == "killed":
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError("odd")


@pytest.mark.slow
def test_workers_answer_in_order_and_say_what_went_wrong() -> None:
    with Workers(["cpu", "cpu"], _prepare, (2,)) as workers:
        seen: list[int] = []
        assert workers.each(_double, [(number,) for number in range(9)], seen.append) == list(range(0, 18, 2))
        assert sorted(seen) == list(range(0, 18, 2))
        with pytest.raises(UsageError) as caught:
            workers.each(_fail, [("usage",)])
        assert (caught.value.message, caught.value.hint) == ("wrong", "mend it")
        with pytest.raises(RuntimeError, match="ValueError: odd"):
            workers.each(_fail, [("odd",)])
        with pytest.raises(EnvironmentUnfit, match="ended with code -9"):
            workers.each(_fail, [("killed",)])


def test_each_scheme_is_a_row_of_its_own(datasets: list[Dataset], tiny_bert: Path, tmp_path: Path) -> None:
    triples = write_triples(tmp_path / "triples.jsonl", 30)
    schemes = (
        Scheme(),
        Scheme("cosine"),
        Scheme("euclidean", parse_transform("whiten:0.5"), str(triples)),
        Scheme("euclidean", parse_transform("truncate:8"), str(triples)),
    )
    written = evaluate_models([ModelToScore(str(tiny_bert))], datasets[:1], tmp_path / "r", EvaluationSettings(schemes))
    assert [each.model.name for each in written] == [
        "tiny-bert", "tiny-bert+cosine", "tiny-bert+whiten-0.5-on-train", "tiny-bert+truncate-8",
    ]  # fmt: skip
    assert [each.model.fit_on for each in written] == [None, None, str(triples), None]
    assert written[3].isotropy is not None
    assert written[3].isotropy.passages.dimensions == written[3].model.output_dim == 8
    assert len({each.fingerprint for each in written}) == 4
    with pytest.raises(UsageError, match="truncate:99: tiny-bert has only 32 dimensions"):
        evaluate_models(
            [ModelToScore(str(tiny_bert))],
            datasets[:1],
            tmp_path / "r",
            EvaluationSettings((Scheme(transform=parse_transform("truncate:99")),)),
        )


def test_results_are_replaced_only_when_there_are_new_ones(
    datasets: list[Dataset], tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    evaluate_models([ModelToScore(str(tiny_bert))], datasets, tmp_path / "r")
    shorter = ModelToScore(str(tiny_bert), max_length=9)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(evaluator, "evaluate", stopped)
        with pytest.raises(KeyboardInterrupt):
            evaluate_models([shorter], datasets[:1], tmp_path / "r", overwrite=True)
    assert "the same command continues from there" in capsys.readouterr().err
    assert (tmp_path / "r" / "tiny-bert" / "task1.json").is_file()
    evaluate_models([shorter], datasets[:1], tmp_path / "r", overwrite=True)
    assert not (tmp_path / "r" / "tiny-bert" / "task1.json").exists()


def test_training_passages_are_fitted_on_without_queries(tmp_path: Path) -> None:
    triples = write_triples(tmp_path / "triples.jsonl", 20)
    lines = [json.loads(line) for line in triples.read_text().splitlines()]
    expected = {line[key] for line in lines for key in ("positive", "negative")}
    assert set(evaluator._training_passages(triples)) == expected


def test_geometry_alone(datasets: list[Dataset], tiny_bert: Path, tmp_path: Path) -> None:
    model = ModelToScore(str(tiny_bert))
    measured = measure_models([model], datasets, tmp_path / "geometry", EvaluationSettings(), overwrite=False)
    evaluated = evaluate_models([model], datasets, tmp_path / "scores")
    assert [each.isotropy for each in measured] == [each.isotropy for each in evaluated]
    folder = tmp_path / "geometry" / "tiny-bert"
    assert {path.name for path in folder.iterdir()} == {
        "model.json", "isotropy.json", "task0.spectrum.tsv", "task1.spectrum.tsv",
        "task0.histograms", "task1.histograms",
    }  # fmt: skip


def test_averages_are_of_complete_sets_only() -> None:
    def result(name: str, score: float) -> DatasetResult:
        return replace(scored_result(Path()), dataset=replace(TEXTS, name=name), metrics={"ndcg@10": score})

    scores = np.linspace(0, 1, 14)
    some = [result(name, score) for name, score in zip(PUBLIC, scores, strict=True)]
    assert averages(some[:-1]) == []
    (mean,) = averages(some)
    assert (mean["over"], mean["datasets"], mean["ndcg@10"]) == ("BEIR, 14 public sets", 14, pytest.approx(0.5))


def test_more_processes_than_cores_are_refused() -> None:
    with pytest.raises(EnvironmentUnfit, match="--processes 9999"):
        evaluator.devices_for(9999)
