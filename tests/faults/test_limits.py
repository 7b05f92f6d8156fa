"""A limit on the size of files, as `ulimit -f` sets it, is found before the first text is encoded."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.tiny_models import build_tiny_bert, write_collection, write_triples


@pytest.mark.parametrize(
    "command",
    [
        "encode own/corpus.jsonl -m encoder -o e.npy",
        "encode own/corpus.jsonl -m encoder -o e.parquet",
        "eval beir -m encoder -d own",
        "data mine own -m encoder --split test --ranks 1-5 -o mined.jsonl",
        "train -r demo-baseline --set base_model=encoder --set data.train=t.jsonl --set data.dev=null "
        "--set batch_size=8 --set max_length=16 --set max_steps=2 --set output_dir=run",
    ],
    ids=lambda command: command.split(" -")[0],
)
def test_a_limit_on_files_is_told_before_the_work_and_leaves_nothing(tmp_path: Path, command: str) -> None:
    write_collection(tmp_path / "own", 300)
    build_tiny_bert(tmp_path / "encoder")
    write_triples(tmp_path / "t.jsonl", 40)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "RAGCUN_CACHE": str(tmp_path / "cache")}
    whole = f"{shlex.quote(sys.executable)} -m ragcun_cli"
    # What is prepared of the texts themselves needs room too: here only what comes after is at stake.
    subprocess.run(["bash", "-c", f"{whole} data check --no-lengths own t.jsonl"], cwd=tmp_path, env=environment,
                   capture_output=True, check=True)  # fmt: skip
    done = subprocess.run(["bash", "-c", f"ulimit -f 24; {whole} {command}"], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, check=False)  # fmt: skip
    said = " ".join(done.stderr.replace("│", "").split())
    assert done.returncode == 4, said
    assert "file-size limit" in said
    assert "Traceback" not in said
    left = {path.name for path in tmp_path.iterdir()} - {"own", "encoder", "t.jsonl", "cache"}
    assert left <= {"results", "run"}
    assert not any(path.is_file() and path.suffix in (".npy", ".safetensors") for path in tmp_path.glob("run/**/*"))
