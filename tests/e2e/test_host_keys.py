"""A next host key is learned before it is used: no client is scared, no connection ends."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.auth.authority import Authority
from tests.support.ssh_gateway import TestGateway


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path / "keys")
    authority.ensure()
    return authority


@pytest.fixture
def gateway(tmp_path: Path, authority: Authority) -> Iterator[TestGateway]:
    made = TestGateway(tmp_path)
    made.services = replace(made.services, host_keys=authority.host_keys)
    made.host_key_line = authority.host_key_line()
    made.start()
    try:
        yield made
    finally:
        made.stop()


def known(gateway: TestGateway) -> set[str]:
    return {line.split()[2] for line in (gateway.root / "known_hosts").read_text().splitlines()}


def key_of(line: str) -> str:
    return line.split()[1]


def test_a_client_learns_the_next_key_and_then_forgets_the_old_one(gateway: TestGateway, authority: Authority) -> None:
    """With OpenSSH's UpdateHostKeys and strict checking throughout; hostkeys-prove-00 is part of it."""
    alice, update = gateway.add_user("alice"), ["-o", "UpdateHostKeys=yes"]
    old = key_of(gateway.host_key_line)
    following = key_of(authority.announce_host_key())
    assert gateway.run("alice", alice, "sleep 0.3", before=update).returncode == 0
    assert known(gateway) == {old, following}
    authority.use_next_host_key()
    done = gateway.run("alice", alice, "sleep 0.3", before=update)
    assert done.returncode == 0, done.stderr
    assert known(gateway) == {following}


def test_a_key_that_cannot_be_read_changes_nothing(gateway: TestGateway, authority: Authority) -> None:
    """The gateway goes on with what it has."""
    alice = gateway.add_user("alice")
    authority.host_keys[1].write_text("no key")
    assert gateway.run("alice", alice, "true").returncode == 0
