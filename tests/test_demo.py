"""The demo from an installed wheel, elsewhere: the whole experiment, as a newcomer runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the project's own backend, in this environment: nothing is downloaded."""
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=REPOSITORY, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel, first on the path of a process that does not see the checkout."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def run_there(elsewhere: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(elsewhere), "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}
    return subprocess.run(
        [sys.executable, "-m", "ragcun_cli", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_the_wheel_carries_the_recipes_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "ragcun_cli/_recipes/parents/publication.yaml" in names
    assert "ragcun_cli/_recipes/schema.json" in names
    assert "ragcun_cli/_constraints.txt" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"ragcun_cli", "ragcun"}


def test_recipes_work_from_the_wheel(elsewhere: Path, tmp_path: Path) -> None:
    where = run_there(elsewhere, tmp_path, "recipe", "list", "--json")
    assert all(str(elsewhere) in each["path"] for each in json.loads(where.stdout))
    assert run_there(elsewhere, tmp_path, "recipe", "copy", "recipes/isotropy.yaml", "mine.yaml").returncode == 0
    checked = run_there(elsewhere, tmp_path, "recipe", "check", "mine.yaml").stdout
    assert checked.startswith("mine.yaml: valid")
    assert "msmarco is not in data/" in " ".join(checked.split())


@pytest.mark.slow
def test_the_quick_demo_ends_in_a_table(elsewhere: Path, tmp_path: Path) -> None:
    done = run_there(elsewhere, tmp_path, "demo", "--quick")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("│")]
    assert [row[1] for row in rows] == ["all-MiniLM-L6-v2", "demo-baseline", "demo-isotropy", "demo-frozen"]
    results = tmp_path / "ragcun-demo" / "results"
    scores = {}
    for model in ("all-MiniLM-L6-v2", "demo-baseline", "demo-isotropy", "demo-frozen"):
        result = json.loads((results / model / "docstrings-quick-test.json").read_text())
        scores[model] = result["metrics"]["ndcg@10"]
        assert 0.4 < scores[model] < 0.95
        assert 0.05 < result["isotropy"]["passages"]["isoscore"] < 0.6
    assert len(set(scores.values())) >= 3  # four, but that two may tie on a hundred queries
    shown = {row[1]: row for row in rows}
    assert all(f"{100 * score:.2f}" in shown[model] for model, score in scores.items())

    again = run_there(elsewhere, tmp_path, "report", "table", "--results", str(results), "--format", "latex")
    assert again.returncode == 0
    assert all(f"{100 * score:.2f}" in again.stdout for score in scores.values())

    weights = {
        arm: json.loads((tmp_path / f"ragcun-demo/checkpoints/demo-{arm}/environment.json").read_text())["model"]
        for arm in ("baseline", "isotropy", "frozen")
    }
    assert len({each["initial_weights_sha256"] for each in weights.values()}) == 1
