"""SciFact from a server to a score: downloaded, checked, mined, trained on and evaluated, one after another."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from ragcun_cli.data import registry
from tests.conftest import COLLECTIONS, RunCommand
from tests.faulty_server import drop_after, flip_a_byte, serving, status

pytestmark = pytest.mark.processes

SCIFACT = COLLECTIONS / "scifact.zip"
ENCODER = "embedded:all-MiniLM-L6-v2"


# Each step has its own tests on collections made here; this one adds BEIR's real texts.
@pytest.mark.slow
@pytest.mark.skipif(not SCIFACT.is_file(), reason="needs BEIR's SciFact, which cannot be shipped")
def test_scifact_from_a_server_to_a_score(ragcun: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = SCIFACT.read_bytes()
    # Its texts are BEIR's byte for byte, its zip was packed again: as if that had been published.
    md5 = hashlib.md5(content).hexdigest()
    known = dataclasses.replace(registry.KNOWN["scifact"], zip_bytes=len(content), md5=md5)
    monkeypatch.setitem(registry.KNOWN, "scifact", known)
    data = ["--data-dir", tmp_path / "data"]
    with serving() as server:
        server.files["scifact.zip"] = content
        server.faults = [drop_after(500_000), status(503, Retry_After="0"), flip_a_byte, drop_after(1_000_000)]
        done = ragcun("data", "download", "scifact", "--mirror", server.url, *data)
    assert done.exit_code == 0, done.stderr
    listed = {each["name"]: each["state"] for each in json.loads(ragcun("data", "list", *data, "--json").stdout)}
    assert listed["scifact"] == "verified"

    report = json.loads(ragcun("data", "check", "scifact", *data, "--json").stdout)[0]
    assert report["counts"]["passages"] == 5183
    assert report["counts"]["train judgements"] == 919

    near = ["-m", ENCODER, "--max-length", "12", "--ranks", "1-30", "--pick", "sample"]
    mined = ragcun("data", "mine", "scifact", *near, "-o", tmp_path / "mined.jsonl", *data, "--json")
    assert json.loads(mined.stdout)["negatives"] == 919

    sets = {
        "base_model": ENCODER, "data.folder": tmp_path / "data", "data.dev": "null", "max_length": 12,
        "output_dim": 384, "warmup_steps": 0, "output_dir": tmp_path / "run",
    }  # fmt: skip
    arguments = [part for key, value in sets.items() for part in ("--set", f"{key}={value}")]
    for source in ("scifact", tmp_path / "mined.jsonl"):
        trained = ragcun(
            "train", "-r", "baseline", *arguments, "--set", f"data.train={source}", "--max-steps", "4", "--overwrite"
        )
        assert trained.exit_code == 0, trained.stderr
        assert "919 triples" in trained.stderr

    scored = ragcun(
        "eval", "beir", "-m", tmp_path / "run", "-d", "scifact", *data, "--results", tmp_path / "results",
        "--no-robustness", "--json",
    )  # fmt: skip
    assert scored.exit_code == 0, scored.stderr
    result = json.loads(scored.stdout)["results"][0]
    assert result["dataset"]["split"] == "test"
    assert 0.2 < result["metrics"]["ndcg@10"] < 0.7  # of texts cut at 12 tokens
