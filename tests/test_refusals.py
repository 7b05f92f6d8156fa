"""Refusals come before torch is imported: a mistake costs a moment, not the seconds of an import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.conftest import REPOSITORY, RunCommand
from tests.results.test_model_entry import ENTRY
from tests.tiny_models import write_collection


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "-r", "isotropy", "--set", "data.folder=nowhere"],
        ["train", "-r", "demo-isotropy", "--set", "base_model=./nothing"],
        ["train", "-r", "baseline", "--set", "data.train=nothing.jsonl", "--dry-run"],
        ["eval", "beir", "-m", "./nothing", "-d", "scifact"],
        ["eval", "beir", "-m", "embedded:all-MiniLM-L6-v2", "-d", "nothing", "--data-dir", "nowhere"],
        ["encode", "nothing.txt", "-m", "./nothing"],
        ["data", "mine", "nothing", "-m", "./nothing", "-o", "x.jsonl"],
        ["results", "list", "--results", "nowhere"],
        ["report", "claims", "--results", "nowhere"],
    ],
)
def test_refusals_come_before_torch(arguments: list[str], tmp_path: Path) -> None:
    """A typing error costs a moment, not the seconds of an import."""
    loaded, code = torch_after(arguments, tmp_path)
    assert (loaded, code) == (False, 2)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["eval", "beir", "-m", "embedded:all-MiniLM-L6-v2", "-d", "own", "--transform", "foo"], 2),
        (["eval", "beir", "-m", "embedded:all-MiniLM-L6-v2", "-d", "own", "--similarity", "foo"], 2),
        (["eval", "beir", "-m", "embedded:all-MiniLM-L6-v2", "-d", "own", "--similarity", ","], 2),
        (["eval", "beir", "-m", "embedded:all-MiniLM-L6-v2", "-d", "own", "--memory", "1KiB"], 2),
        (["eval", "beir", "-m", "nomodel", "-d", "own"], 4),
        (["eval", "beir", "-m", "coded", "-d", "own"], 1),
        (["eval", "beir", "-m", "short", "-d", "own", "--max-length", "5000"], 2),
        (["eval", "beir", "-m", "short", "-d", "own", "--name", "other"], 2),
        (["encode", "own/corpus.jsonl", "-m", "nomodel"], 4),
        (["data", "mine", "own", "--split", "test", "-m", "nomodel", "-o", "x.jsonl"], 4),
        (["data", "mine", "own", "--split", "test", "-o", "x.jsonl"], 2),
        (["data", "mine", "own", "-m", "embedded:all-MiniLM-L6-v2", "-o", "x.jsonl", "--ranks", "9-3"], 2),
        (["data", "check", "own", "--tokenizer", "nomodel"], 4),
        (["export", "nothing", "there"], 2),
        (["export", "coded", "there", "--onnx"], 4),  # in a process where these packages are not found
        (["train", "-r", "demo-isotropy", "--set", "base_model=nomodel"], 4),
    ],
)
def test_so_do_those_of_flags_and_models_where_the_data_are_there(
    arguments: list[str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_collection(tmp_path / "own", 3)
    (tmp_path / "results" / "other").mkdir(parents=True)
    ENTRY.write(tmp_path / "results" / "other")
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "config.json").write_text('{"max_position_embeddings": 512}')
    save_file({"a": np.zeros(1, dtype=np.float32)}, tmp_path / "short" / "model.safetensors")
    (tmp_path / "coded").mkdir()
    (tmp_path / "coded" / "config.json").write_text('{"auto_map": {"AutoModel": "modeling.Theirs"}}')
    assert torch_after(arguments, tmp_path) == (False, expected)


def torch_after(arguments: list[str], folder: Path) -> tuple[bool, int]:
    program = (
        "import importlib.util\nfound = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'onnxscript' else found(name, *rest)\n"
        f"import sys\nsys.argv = ['ragcun', *{arguments!r}]\nfrom ragcun_cli.main import main\n"
        "try:\n    main()\n    code = 0\nexcept SystemExit as error:\n    code = error.code\n"
        "sys.stdout.write(f\"\\n{'torch' in sys.modules} {int(code or 0)}\\n\")\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, env=environment,
                          check=True)  # fmt: skip
    loaded, code = done.stdout.splitlines()[-1].split()
    return loaded == "True", int(code)


def test_a_changed_recipe_and_a_finished_run_are_told_before_torch(
    ragcun: RunCommand, small_recipe: Path, tmp_path: Path
) -> None:
    run = ["train", "-r", str(small_recipe), "--set", "max_steps=1"]
    assert ragcun(*run).exit_code == 0
    assert torch_after([*run, "--resume", "--set", "temperature=0.1"], tmp_path) == (False, 2)
    assert torch_after(run, tmp_path) == (False, 2)
    assert torch_after([*run, "--resume"], tmp_path) == (False, 0)
