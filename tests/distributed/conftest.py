"""Two processes for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.distributed.processes import Processes


@pytest.fixture(scope="session")
def two_processes(cache_of_its_own: None) -> Iterator[Processes]:
    processes = Processes(2)
    yield processes
    processes.close()
