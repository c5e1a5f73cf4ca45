"""A gateway with two users, shared by a test module."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ssh_gateway import TestGateway


@dataclass
class Laboratory:
    """A running gateway; alice and bob each have a key and a running environment."""

    gateway: TestGateway
    alice: Path
    bob: Path


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    gateway = TestGateway(tmp_path_factory.mktemp("gw"), max_startups="100:30:200")
    gateway.start()
    try:
        yield Laboratory(gateway, gateway.add_user("alice"), gateway.add_user("bob"))
    finally:
        gateway.stop()
