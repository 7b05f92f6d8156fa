"""A log that nobody reads, a disk behind standard output, a terminal of ASCII: no work is lost with them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.faults.train_process import assert_same_run, status
from tests.tiny_models import write_collection

RAGCUN = f"{shlex.quote(sys.executable)} -m ragcun_cli"
FULL = Path("/dev/full")


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of bash; its exit code is that of the first command of a pipe."""
    return subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ending", "said"),
    [("2>&1 | head -1", "Broken pipe"), ("2>/dev/full", "No space left"), (">&- 2>&-", "Bad file descriptor")],
)
def test_training_goes_on_when_its_log_has_gone(
    small_recipe: Path, tmp_path: Path, ending: str, said: str, reference_run: Path
) -> None:
    output = tmp_path / "unread"
    done = shell(f"{RAGCUN} train -r {small_recipe} --set output_dir={output} {ending}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (status(output)["state"], status(output)["exit_code"]) == ("finished", 0)
    assert said in status(output)["log_lost"]
    assert_same_run(output, reference_run)


@pytest.fixture
def reference_run(small_recipe: Path, tmp_path: Path) -> Path:
    done = shell(f"{RAGCUN} train -r {small_recipe} --set output_dir={tmp_path / 'read'}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "log_lost" not in status(tmp_path / "read")
    return tmp_path / "read"


def test_several_processes_go_on_too(small_recipe: Path, tmp_path: Path) -> None:
    output = tmp_path / "two"
    line = f"{RAGCUN} train -r {small_recipe} --set output_dir={output} --set max_steps=4 --processes 2 2>&1 | head -1"
    assert shell(line, tmp_path).returncode == 0
    assert status(output)["state"] == "finished"


@pytest.mark.parametrize("ending", ["2>&1 | head -1", ">/dev/null 2>/dev/full", ">&- 2>&-"])
def test_evaluating_encoding_and_mining_write_their_files(
    tiny_bert: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, ending: str
) -> None:
    write_collection(tmp_path / "tiny", 12)
    write_collection(tmp_path / "mined", 12, split="train")
    cache = str(tmp_path_factory.mktemp("cache"))
    for command in (
        f"eval beir -m {tiny_bert} -d tiny --results results",
        f"encode tiny/corpus.jsonl -m {tiny_bert} -o out.npy",
        f"data mine mined -m {tiny_bert} -o mined.jsonl --ranks 1-5",
    ):
        done = shell(f"{RAGCUN} {command} {ending}", tmp_path, RAGCUN_CACHE=cache)
        assert done.returncode == 0, (command, done.stderr)
    assert json.loads((tmp_path / "results" / "tiny-bert" / "tiny.json").read_text())["metrics"]["ndcg@10"] > 0
    assert np.load(tmp_path / "out.npy").shape == (12, 32)
    assert len((tmp_path / "mined.jsonl").read_text().splitlines()) == 12


def test_a_listing_that_is_not_read_to_its_end_ends_well(tmp_path: Path) -> None:
    for line in ("data list | head -1", "data list --json | head -1", "data list >&-", "recipe list | true"):
        done = shell(f"{RAGCUN} {line}", tmp_path)
        assert done.returncode == 0, (line, done.stderr)
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr


# A closed pipe and a closed descriptor are tested above on every system; the full device is Linux's, as CI is.
@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
def test_results_that_do_not_arrive_are_an_error_of_the_disk(tmp_path: Path) -> None:
    done = shell(f"{RAGCUN} data list --json >/dev/full", tmp_path)
    assert done.returncode == 4
    assert "standard output: No space left on device" in done.stderr


def test_what_another_program_reads_is_right_on_a_terminal_of_ascii(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "description: Käse – ≤\nlambda_isotropy: 1\nlambda_reg: 0\nbase_model: café/model\ndata: {train: x}\n",
        encoding="utf-8",
    )
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    shown = shell(f"{RAGCUN} recipe show mine.yaml --json", tmp_path, **ascii_only).stdout
    assert shown.isascii()
    assert json.loads(shown)["description"] == "Käse – ≤"
    # As bytes: the test's own terminal is UTF-8.
    shown = shell(f"{RAGCUN} recipe show mine.yaml", tmp_path, **ascii_only).stdout
    assert yaml.safe_load(shown)["base_model"] == "café/model"
    missing = shell(f"{RAGCUN} recipe show nöwhere.yaml --json", tmp_path, **ascii_only)
    assert missing.stdout.isascii()
    assert "nöwhere" in json.loads(missing.stdout)["error"]
