"""One server for all tests here; it leaves no process behind, and says so where a training did."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.crash.client import Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server
        assert server.survivors() == set()  # workers of killed trainers have gone by themselves
