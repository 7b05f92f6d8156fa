"""A launched run, and a folder where its machine works."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragcun_cli.aws.record import RunRecord
from tests.aws.cloud import ACCOUNT, HOME, Cloud
from tests.aws.every_command import BUCKET
from tests.aws.launch_builders import launch_for


@pytest.fixture
def record(cloud: Cloud, checkout: Path) -> RunRecord:
    launch_for(cloud, checkout)
    return RunRecord(cloud.aws(), ACCOUNT, BUCKET, HOME, "isotropy")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the machine works."""
    folder = tmp_path / "work"
    for name in ("results/isotropy", "report", "logs", "checkpoints/isotropy", "recipes"):
        (folder / name).mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder
