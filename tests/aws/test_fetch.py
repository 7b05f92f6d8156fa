"""`ragcun aws fetch` from a bucket that a hostile or broken machine has filled: nothing outside the folder."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ragcun_cli.aws.record import RunRecord, as_json
from tests.aws.bucket_writes import CONTENT, put
from tests.aws.command_answers import refuses, said
from tests.conftest import RunCommand


@pytest.fixture(autouse=True)
def one_result(launched: RunRecord) -> None:
    put(launched, "results/isotropy/scifact.json", CONTENT)


def put_model(record: RunRecord, training: str, *names: str) -> None:
    """A final model whose manifest has these names, and an object for each."""
    below = f"checkpoints/{training}/models/final"
    entry = {"bytes": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}
    put(record, f"{below}/manifest.json", as_json({"files": dict.fromkeys(names, entry)}))
    for name in names:
        put(record, f"{below}/{name}")


def everything_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


OBJECTS: dict[str, tuple[Any, str]] = {
    "a key with ..": (lambda record: put(record, "results/../../.bashrc"), "the part '..'"),
    "a key with an empty part": (lambda record: put(record, "results//etc/x"), "the part ''"),
    "a key with a backslash": (lambda record: put(record, "results/..\\..\\x"), "a backslash"),
    "a key that clears the screen": (lambda record: put(record, "logs/\x1b[2J"), "a control character"),
    "a key that is a file and a folder": (
        lambda record: (put(record, "results/isotropy/scifact.json/x")), "results/isotropy/scifact.json/x: ",
    ),
    "a manifest's name with ..": (
        lambda record: put_model(record, "isotropy", "../../../../.ssh/authorized_keys"), "the part '..'",
    ),
    "a manifest's absolute name": (
        lambda record: put_model(record, "isotropy", "/tmp/ragcun-absolute"), "an absolute path",
    ),
    "a manifest's name that is a file and a folder": (
        lambda record: put_model(record, "isotropy", "weights", "weights/x"), "models/final: ",
    ),
    "a training called ..": (lambda record: put_model(record, "..", ".profile"), "the part '..'"),
    "a run's file called ..": (
        lambda record: put(record, "checkpoints/isotropy/run/../../../.profile"), "the part '..'",
    ),
    "a manifest's name of 1,000 parts": (
        lambda record: put_model(record, "isotropy", "a/" * 600 + "x"), "longer than 1024 bytes",
    ),
    "an object that nobody can read now": (
        lambda record: put(record, "results/isotropy/cold.json", StorageClass="GLACIER"), "results/isotropy/cold.json",
    ),
    "a name of 300 bytes": (lambda record: put(record, f"report/{'x' * 300}"), "longer than 255 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OBJECTS)
def test_a_hostile_name_becomes_a_problem_and_the_rest_is_fetched(
    launched: RunRecord, ragcun: RunCommand, tmp_path: Path, kind: str
) -> None:
    home = tmp_path / "home"
    to = home / "a" / "b"
    to.mkdir(parents=True)
    make, expected = OBJECTS[kind]
    make(launched)
    done = ragcun("aws", "fetch", "isotropy", "--to", to)
    refuses(done, 1, "incomplete in the bucket")
    assert expected.replace(" ", "") in said(done).replace(" ", "")
    assert (to / "results/isotropy/scifact.json").read_bytes() == CONTENT
    assert all(name.startswith("a/b/") for name in everything_below(home)), everything_below(home)
    assert not Path("/tmp/ragcun-absolute").exists()
    assert "\x1b[2J" not in done.stderr


def test_a_link_that_leads_out_is_not_written_through(launched: RunRecord, ragcun: RunCommand, tmp_path: Path) -> None:
    to, elsewhere = tmp_path / "to", tmp_path / "elsewhere"
    elsewhere.mkdir()
    to.mkdir()
    (to / "results").symlink_to(elsewhere)
    done = ragcun("aws", "fetch", "isotropy", "--to", to)
    refuses(done, 1, "a link leads it outside")
    assert os.listdir(elsewhere) == []


def test_the_folders_that_the_console_makes_are_no_files(
    launched: RunRecord, ragcun: RunCommand, tmp_path: Path
) -> None:
    put(launched, "results/", b"")
    done = ragcun("aws", "fetch", "isotropy", "--to", tmp_path / "to", "--json")
    assert json.loads(done.stdout)["files"] == 1
    assert everything_below(tmp_path / "to") == {"results/isotropy/scifact.json"}


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"state": "running", "best_step": [1]}', b"[1]"])
def test_a_trainings_state_may_be_anything(
    launched: RunRecord, ragcun: RunCommand, tmp_path: Path, content: bytes
) -> None:
    put(launched, "checkpoints/isotropy/run/status.json", content)
    put_model(launched, "isotropy", "weights")
    done = ragcun("aws", "fetch", "isotropy", "--to", tmp_path / "to")
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "to/checkpoints/isotropy/final_model/weights").read_bytes() == CONTENT
