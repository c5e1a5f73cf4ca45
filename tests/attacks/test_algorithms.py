"""What the gateway offers before anybody has logged in, judged by ssh-audit and tried by a client (row E)."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from gateway.config.ssh import KEY_EXCHANGES
from tests.attacks.second_user import second_user
from tests.fuzz.gateway_under_fire import GatewayUnderFire, gateway_under_fire

CLASSICAL = ["does not provide protection against post-quantum attacks"]
"""Said of X25519 alone: OpenSSH before 9.9 knows no ML-KEM, so it stays behind the hybrid as the second choice."""


@pytest.fixture(scope="module")
def under_fire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayUnderFire]:
    with gateway_under_fire(tmp_path_factory.mktemp("algorithms")) as gateway:
        yield gateway


def audit(gateway: GatewayUnderFire) -> dict[str, Any]:
    """Return ssh-audit's report."""
    command = [sys.executable, "-m", "ssh_audit", "-j", "--skip-rate-test", "-p", str(gateway.port), "127.0.0.1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return dict(json.loads(done.stdout))


def notes(report: dict[str, Any], level: str) -> dict[str, list[str]]:
    """Return what was said at a level, by algorithm."""
    offered = (entry for kind in ("kex", "key", "enc", "mac") for entry in report[kind])
    return {entry["algorithm"]: entry["notes"][level] for entry in offered if level in entry["notes"]}


@pytest.mark.attack("E14", "weak algorithms: ssh-audit finds no failure, and no warning but that X25519 is classical")
def test_ssh_audit_finds_nothing_weak(under_fire: GatewayUnderFire) -> None:
    """No failure, no CVE, nothing recommended; the hybrid of ML-KEM and X25519 comes first."""
    with second_user(under_fire):
        report = audit(under_fire)
    assert notes(report, "fail") == {}
    assert notes(report, "warn") == {"curve25519-sha256": CLASSICAL, "curve25519-sha256@libssh.org": CLASSICAL}
    assert report["cves"] == []
    assert report["recommendations"] == {}
    assert report["compression"] == ["none"]
    assert [entry["algorithm"] for entry in report["kex"]][:3] == list(KEY_EXCHANGES)
    assert report["kex"][0]["algorithm"] == "mlkem768x25519-sha256"
    assert under_fire.holds_no_traceback()


def test_ssh_audit_warns_of_nothing_where_only_ml_kem_is_spoken(tmp_path: Path) -> None:
    """A site whose clients are all new enough leaves X25519 out."""
    with gateway_under_fire(tmp_path, kex_algorithms=["mlkem768x25519-sha256"]) as gateway:
        report = audit(gateway)
    assert notes(report, "fail") == {}
    assert notes(report, "warn") == {}
    assert report["recommendations"] == {}


@pytest.mark.parametrize("exchange", KEY_EXCHANGES)
def test_each_key_exchange_logs_in(under_fire: GatewayUnderFire, exchange: str) -> None:
    """The hybrid is no mere offer: a client that knows nothing else gets in."""

    async def greet() -> bytes:
        connection = await asyncssh.connect(
            "127.0.0.1",
            under_fire.port,
            username="alice",
            client_keys=[str(under_fire.key("alice"))],
            known_hosts=None,
            config=None,
            kex_algs=[exchange],
        )
        async with connection:
            return bytes((await connection.run("echo hi", encoding=None)).stdout)

    assert asyncio.run(greet()) == b"hi\n"
