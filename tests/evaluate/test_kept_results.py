"""Nothing is computed twice: a result of the same model, texts and rules is kept, whatever interrupted the command."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ragcun_cli.errors import UsageError
from ragcun_cli.evaluate import evaluator
from ragcun_cli.evaluate.datasets import find_datasets
from ragcun_cli.evaluate.evaluator import EvaluationSettings, ModelToScore
from ragcun_cli.evaluate.runner import evaluate_models, measure_models
from ragcun_cli.evaluate.scoring import Scheme
from ragcun_cli.evaluate.transform_names import parse_transform
from tests.conftest import REPOSITORY, RunCommand
from tests.tiny_models import build_tiny_bert, write_collection

SCHEMES = ["none", "center", "whiten:0.5", "int8", "truncate:16"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAGCUN_CACHE", str(tmp_path / "cache"))
    for number in range(4):
        write_collection(tmp_path / "data" / f"set{number}", 12, seed=number)
    return tmp_path


def test_a_second_evaluation_computes_nothing(
    place: Path, tiny_bert: Path, ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["eval", "beir", "-m", tiny_bert, "-d", "set0,set1", "--transform", "none,center"]
    first = ragcun(*command, "--json")
    assert first.exit_code == 0, first.stderr
    worked: list[str] = []
    for name in ("evaluate", "measure_only"):
        monkeypatch.setattr(evaluator, name, lambda *_: worked.append("computed"))
    second = ragcun(*command, "--json")
    assert (json.loads(second.stdout)["results"], worked) == (json.loads(first.stdout)["results"], [])
    assert "4 of 4 results are up to date" in second.stderr
    # What was measured along the way is not measured again either.
    assert ragcun("eval", "isotropy", "-m", tiny_bert, "-d", "set0").exit_code == 0
    assert worked == []


def test_what_changed_is_computed_again_and_nothing_else(
    place: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked: list[str] = []
    real = evaluator.evaluate

    def counted(embedded: object, part: object, *rest: object) -> object:
        worked.append(part.name)
        return real(embedded, part, *rest)

    monkeypatch.setattr(evaluator, "evaluate", counted)
    models = [ModelToScore(str(tiny_bert))]

    def score(settings: EvaluationSettings | None = None, recompute: bool = False) -> list[str]:
        worked.clear()
        datasets, _ = find_datasets(["set0", "set1"], place / "data", None)
        results = evaluate_models(models, datasets, place / "results", settings, True, recompute)
        assert {each.name for each in results} == {"set0", "set1"}
        return list(worked)

    bare = EvaluationSettings(robustness=False)
    assert score(bare) == ["set0", "set1"]
    assert score(bare) == []
    assert score() == ["set0", "set1"]  # scores of smaller embeddings are asked for now
    assert score(bare) == []
    assert score(recompute=True) == ["set0", "set1"]
    assert score(EvaluationSettings(schemes=(Scheme(), Scheme("cosine")))) == ["set0", "set1"]  # the cosine's alone
    queries = place / "data" / "set1" / "queries.jsonl"
    queries.write_text(queries.read_text().replace('"text": "', '"text": "w1 ', 1))
    assert score() == ["set1"]
    (place / "results" / "tiny-bert" / "set0.run.gz").unlink()
    assert score() == ["set0"]
    (place / "results" / "tiny-bert" / "isotropy.json").write_text("{}")
    assert score() == ["set0", "set1"]
    models[0] = ModelToScore(str(tiny_bert), None, 16)
    assert score() == ["set0", "set1"]


def test_isotropy_alone_is_kept_too(place: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets, _ = find_datasets(["set0"], place / "data", None)
    settings = EvaluationSettings(schemes=(Scheme(), Scheme("euclidean", parse_transform("center"))))
    first = measure_models([ModelToScore(str(tiny_bert))], datasets, place / "results", settings, False)
    monkeypatch.setattr(evaluator, "measure_only", lambda *_: pytest.fail("measured again"))
    assert measure_models([ModelToScore(str(tiny_bert))], datasets, place / "results", settings, False) == first


def test_a_folder_whose_first_file_was_being_written_is_no_strangers(place: Path, tiny_bert: Path) -> None:
    """A kill in that moment leaves the file's temporary name alone in the folder."""
    datasets, _ = find_datasets(["set0"], place / "data", None)
    settings = EvaluationSettings(schemes=(Scheme(),))
    folder = place / "results" / tiny_bert.name
    folder.mkdir(parents=True)
    (folder / ".model.json.0123abcd.new").write_text("{")
    evaluate_models([ModelToScore(str(tiny_bert))], datasets, place / "results", settings, False)
    assert (folder / "set0.json").is_file()
    (place / "results" / "mine").mkdir()
    (place / "results" / "mine" / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match="not a ragcun results folder"):
        evaluate_models([ModelToScore(str(tiny_bert), "mine")], datasets, place / "results", settings, False)


@pytest.mark.slow
def test_killed_at_ten_random_moments_no_finished_cell_is_computed_again(place: Path) -> None:
    """Sixty cells: three models, four datasets, five transforms. A kill costs no more than the cell it hits."""
    models = [build_tiny_bert(place / f"model{number}", seed=number) for number in range(3)]
    words = ["eval", "beir", "-d", "set0,set1,set2,set3", "--no-robustness"]
    words += [word for model in models for word in ("-m", model.name)]
    words += [word for scheme in SCHEMES for word in ("--transform", scheme)]
    command = [sys.executable, "-m", "ragcun_cli", *words]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    draw, finished = random.Random(21), dict[Path, int]()

    def look() -> None:
        for path in (place / "results").glob("*/set*.json"):
            written = path.stat().st_mtime_ns
            assert finished.setdefault(path, written) == written, f"{path.name} was computed twice"

    for _ in range(10):
        process = subprocess.Popen(command, cwd=place, env=environment, stderr=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
        already, deadline = len(finished), time.monotonic() + 120
        while len(finished) == already and process.poll() is None and time.monotonic() < deadline:
            look()
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.4))
        with contextlib.suppress(ProcessLookupError):  # a quick machine may be through with all of them
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        look()
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (shlex.join(command), done.stderr)
    already = len(finished)
    look()
    assert len(finished) == 60
    assert f"{already} of 60 results are up to date" in done.stderr
