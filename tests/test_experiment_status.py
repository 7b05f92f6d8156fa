"""`ragcun` alone: where a folder stands on the path, and what is next."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ragcun_cli.experiment_status import experiment_status, next_command
from tests.conftest import RunCommand
from tests.tiny_models import write_collection


def test_from_an_empty_folder_to_a_report(tmp_path: Path) -> None:
    assert [step.done for step in experiment_status(tmp_path)] == [False] * 4
    assert next_command(experiment_status(tmp_path)) == "ragcun data download msmarco beir"

    write_collection(tmp_path / "data" / "own", 5, split="test")
    assert "1 collection in data/" in experiment_status(tmp_path)[0].seen

    status(tmp_path, "isotropy", "interrupted", 120)
    steps = experiment_status(tmp_path)
    assert [step.done for step in steps] == [True, False, False, False]  # who trains has data somewhere
    assert "isotropy interrupted at step 120 of 300" in steps[1].seen
    assert next_command(steps) == "ragcun train --recipe checkpoints/isotropy/recipe.yaml --resume"

    status(tmp_path, "isotropy", "finished", 300)
    status(tmp_path, "baseline", "finished", 300)
    steps = experiment_status(tmp_path)
    assert steps[1].seen == "finished: checkpoints/baseline, checkpoints/isotropy"
    assert next_command(steps).startswith("ragcun eval beir --model checkpoints/baseline --model checkpoints/isotropy")

    (tmp_path / "results" / "baseline").mkdir(parents=True)
    (tmp_path / "results" / "baseline" / "model.json").write_text("{}")
    steps = experiment_status(tmp_path)
    assert "not evaluated yet: checkpoints/isotropy" in steps[2].seen
    assert "--model checkpoints/isotropy " in next_command(steps)

    (tmp_path / "results" / "isotropy").mkdir()
    (tmp_path / "results" / "isotropy" / "model.json").write_text("{}")
    assert next_command(experiment_status(tmp_path)) == "ragcun report table --format latex > table.tex"
    (tmp_path / "report.html").touch()
    assert [step.done for step in experiment_status(tmp_path)] == [True] * 4


def test_runs_results_and_data_are_seen_wherever_they_lie(tmp_path: Path) -> None:
    for number in range(5):
        status(tmp_path / "tuning", f"arm{number}", "finished", 300)
        shutil.rmtree(tmp_path / "tuning" / "checkpoints" / f"arm{number}" / "best_model")  # not kept
    status(tmp_path, "final", "finished", 300)
    (tmp_path / "mixed.jsonl").touch()
    (tmp_path / "results-dev" / "final").mkdir(parents=True)
    (tmp_path / "results-dev" / "final" / "model.json").write_text("{}")
    (tmp_path / "table1.tex").touch()
    (tmp_path / "table1.csv").touch()  # no training data
    data, training, evaluation, report = experiment_status(tmp_path)
    assert "tuning" not in evaluation.command  # there is no model to score
    assert data.seen.startswith("training data: mixed.jsonl;")
    assert training.seen.startswith("finished: checkpoints/final, tuning/checkpoints/arm0")
    assert (evaluation.done, evaluation.seen) == (True, "final in results-dev/")
    assert report.seen == "table1.csv, table1.tex"
    assert report.command == "ragcun report table --format latex --results results-dev > table.tex"


def test_what_cannot_be_read_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "broken").mkdir(parents=True)
    (tmp_path / "checkpoints" / "broken" / "status.json").write_text("{")
    assert experiment_status(tmp_path)[1].seen == "no run in this folder"


def test_the_command_alone_says_it(ragcun: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = ragcun()
    assert done.exit_code == 0
    assert "training" in done.stdout
    assert "Next:  ragcun data download msmarco beir" in done.stderr
    assert "First: ragcun demo" in done.stderr
    status(tmp_path, "final", "finished", 300)
    assert "ragcun demo" not in ragcun().stderr  # who has trained has begun
    assert [step["name"] for step in json.loads(ragcun("--json").stdout)["steps"]] == [
        "data",
        "training",
        "evaluation",
        "report",
    ]


def status(folder: Path, run: str, state: str, step: int) -> None:
    place = folder / "checkpoints" / run
    (place / "best_model").mkdir(parents=True, exist_ok=True)
    (place / "recipe.yaml").touch()
    (place / "status.json").write_text(json.dumps({"state": state, "step": step, "total_steps": 300}))


def test_a_link_in_a_circle_hides_nothing_beside_it(tmp_path: Path) -> None:
    status(tmp_path / "tuning", "a", "finished", 300)
    (tmp_path / "one").symlink_to("other")
    (tmp_path / "other").symlink_to("one")
    assert experiment_status(tmp_path)[1].seen == "finished: tuning/checkpoints/a"
