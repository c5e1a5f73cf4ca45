"""Where a name may lead, in every form of an address; and that what was checked is what is connected to."""

import asyncio
import ipaddress
from collections.abc import Sequence

import pytest

from gateway.egress.addresses import Address, own_addresses, refusal_of
from gateway.egress.resolver import Dialer, UnreachableError

PRIVATE = [
    # IPv4: this host, private, shared, loopback, link-local with metadata, documentation, multicast, reserved
    "0.0.0.0",  # noqa: S104 - it is the one that must not be bound to or reached
    "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.9.9.9", "169.254.169.254", "172.16.0.1", "172.31.255.254",
    "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1",
    "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16",
    # IPv6 of its own
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fd12:3456::1", "ff02::1", "100::1",
    "2001:db8::1", "3fff::1", "fec0::1", "5f00::1", "4000::1",
    # IPv4 carried in IPv6: mapped, compatible, NAT64, 6to4, Teredo, ISATAP
    "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:127.0.0.1", "::10.0.0.1", "64:ff9b::10.0.0.1",
    "64:ff9b::169.254.169.254", "64:ff9b:1::10.0.0.1", "2002:a00:1::1", "2002:7f00:1::", "2002:0808:0808::1",
    "2001:0:a00:1::1", "2a00:1450:4001::5efe:10.0.0.1", "2a00:1450:4001:0:200:5efe:10.0.0.1",
]  # fmt: skip
PUBLIC = [
    "8.8.8.8", "151.101.0.223", "192.31.196.1", "172.32.0.1", "100.128.0.1", "169.253.1.1",
    "2a04:4e42::223", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8",
]  # fmt: skip


@pytest.mark.attack("C20", "a name that leads to a private, local, shared or metadata address, also carried in IPv6")
@pytest.mark.parametrize("address", PRIVATE)
def test_no_address_that_is_not_public_is_connected_to(address: str) -> None:
    assert refusal_of(ipaddress.ip_address(address)) is not None


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are(address: str) -> None:
    assert refusal_of(ipaddress.ip_address(address)) is None


@pytest.mark.attack("C20", "a name that leads to the gateway's own public address")
@pytest.mark.parametrize("form", ["8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"])
def test_the_gateways_own_public_address_is_closed_in_every_form(form: str) -> None:
    own = frozenset({ipaddress.ip_address("8.8.8.8")})
    assert "own host" in str(refusal_of(ipaddress.ip_address(form), own))


def test_the_hosts_own_addresses_are_known() -> None:
    assert ipaddress.ip_address("127.0.0.1") in own_addresses()


class Names:
    """A resolver whose answers change: the next list each time, the last for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str) -> Sequence[Address]:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [ipaddress.ip_address(text) for text in answer]


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that were really connected to; none answers."""
    tried: list[str] = []

    async def refuse(address: str, port: int, **_options: object) -> None:
        tried.append(f"{address} {port}")
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(asyncio, "open_connection", refuse)
    return tried


def connect(names: Names) -> UnreachableError:
    with pytest.raises(UnreachableError) as raised:
        asyncio.run(Dialer(names, frozenset).connect("name.example.net", 443))
    return raised.value


@pytest.mark.attack("C20", "a name that leads elsewhere the second time (DNS rebinding)")
def test_a_name_is_resolved_once_and_the_checked_address_is_connected_to(dialled: list[str]) -> None:
    """Whoever owns the name answers otherwise the second time (DNS rebinding): there is no second time."""
    names = Names(["8.8.8.8"], ["127.0.0.1"])
    error = connect(names)
    assert names.asked == ["name.example.net"]
    assert dialled == ["8.8.8.8 443"]
    assert error.reason == "name.example.net port 443: connection refused"


def test_a_name_that_leads_nowhere_else_is_forbidden(dialled: list[str]) -> None:
    error = connect(Names(["10.0.0.1", "::1"]))
    assert dialled == []
    assert error.forbidden == "10.0.0.1 is not a public address"
    assert "10.0.0.1" not in error.reason


def test_of_mixed_addresses_only_public_ones_are_tried_and_few(dialled: list[str]) -> None:
    connect(Names(["127.0.0.1", *(f"8.8.8.{number}" for number in range(50))]))
    assert dialled == [f"8.8.8.{number} 443" for number in range(4)]


def test_a_name_without_an_address_is_no_breach(dialled: list[str]) -> None:
    class Unknown(Names):
        async def __call__(self, host: str) -> Sequence[Address]:
            raise OSError(-2, "Name or service not known")

    error = connect(Unknown())
    assert (error.reason, error.forbidden) == ("the gateway finds no address of name.example.net", "")
