"""One set of results for many tests; who changes it takes a copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.report.scored import three_arms


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """results/ and data/ of three arms with three seeds on two datasets: do not write here."""
    root = tmp_path_factory.mktemp("scored")
    three_arms(root)
    return root


@pytest.fixture
def copied(scored: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    shutil.copytree(scored, tmp_path, dirs_exist_ok=True)
    return tmp_path
