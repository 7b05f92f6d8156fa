"""`ragcun preflight`: what would stop an experiment on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.conftest import REPOSITORY, RunCommand


def test_this_machine_is_fit_for_the_demo(ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    done = ragcun("preflight", "--recipe", "demo-isotropy", "--recipe", "demo-frozen", "--json")
    assert done.exit_code == 0, done.stdout
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert checks["packages"]["seen"].startswith("the tested set: torch ")
    assert "53aa5117" in checks["base model embedded:all-MiniLM-L6-v2"]["seen"]
    assert {check["status"] for check in checks.values()} == {"ok"}


def test_everything_that_would_stop_it_is_named_at_once(
    ragcun: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("extends: nowhere.yaml\n")
    done = ragcun("preflight", "--recipe", recipe, "--recipe", "isotopy", "--gpus", "2")
    assert done.exit_code == 4
    said = " ".join(done.stderr.replace("│", " ").split())
    for expected in ("GPUs: 0 of 2", "there is no file", "did you mean 'isotropy'?", "nvidia-smi"):
        assert expected in said
    assert "failed" in done.stdout


def test_a_base_model_that_is_not_there(ragcun: RunCommand, small_recipe: Path, tmp_path: Path) -> None:
    text = small_recipe.read_text().replace("base_model: ", f"base_model: {tmp_path}/nowhere # ")
    small_recipe.write_text(text)
    done = ragcun("preflight", "--recipe", small_recipe)
    assert done.exit_code == 4
    assert "nowhere" in done.stderr


def test_other_versions_than_the_tested_are_a_remark(ragcun: RunCommand, tmp_path: Path) -> None:
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("torch==1.0.0\nnumpy==1.0.0; python_version < '3.0'  # older\n")
    done = ragcun("preflight", "--recipe", "demo-isotropy", "--constraints", constraints, "--json")
    assert done.exit_code == 0
    packages = next(check for check in json.loads(done.stdout) if check["name"] == "packages")
    assert packages["status"] == "remark"
    assert "(tested: 1.0.0)" in packages["seen"]
