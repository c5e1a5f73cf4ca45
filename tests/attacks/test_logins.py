"""Rows A, B and G: who is let in is who signed, under a name that can be somebody's; bob works on meanwhile."""

import asyncio

import asyncssh
import pytest

from gateway.audit.record import Record
from tests.attacks.intruder import LoginRequest, intrude, key_pair, probe, signed
from tests.fuzz.gateway_under_fire import GatewayUnderFire
from tests.fuzz.packets import string
from tests.support.ssh_clients import poll

OTHER_METHODS = {
    "password": b"\0" + string("secret"),
    "keyboard-interactive": string("") + string(""),
    "hostbased": b"".join(map(string, ["ssh-ed25519", "key", "localhost", "alice", "signature"])),
    "gssapi-with-mic": (1).to_bytes(4, "big") + string(b"\x06\x09*\x86H\x86\xf7\x12\x01\x02\x02"),
    "none": b"",
}


def refused(gateway: GatewayUnderFire, since: int, count: int = 1) -> list[Record]:
    """Return the refused logins after the first so many, once there are so many more."""
    return poll(lambda: found if len(found := gateway.records("login.refused")[since:]) >= count else [], "the refusal")


@pytest.mark.attack("A1", "password, keyboard-interactive, hostbased, GSSAPI: sent although not offered")
@pytest.mark.parametrize("name", ["alice", "root"])
def test_another_method_gets_the_same_refusal(attacked: GatewayUnderFire, name: str) -> None:
    """Each is answered with publickey as the only method, and nobody is in; one connection is one event."""
    before = len(attacked.records("login.refused"))
    requests = [LoginRequest(name, method.encode(), rest) for method, rest in OTHER_METHODS.items()]
    connection, intruder = asyncio.run(intrude(attacked.port, requests))
    assert connection is None
    assert intruder.methods == [b"none", *[b"publickey"] * len(OTHER_METHODS)]  # the first is where it starts
    assert [record.actor["name"] for record in refused(attacked, before)] == [name]


@pytest.mark.attack("A4", "a key that is only offered, or signed for by another: never an identity")
def test_an_offered_key_is_no_identity(attacked: GatewayUnderFire) -> None:
    """Alice's public key is no secret: it is answered, and gets nobody in without her signature."""
    before = len(attacked.records("login.refused"))
    alice, bob = (key_pair(attacked.key(user)) for user in ("alice", "bob"))
    requests = [probe("alice", alice), signed("alice", bob), signed("alice", alice, by=bob)]
    connection, _ = asyncio.run(intrude(attacked.port, requests))
    assert connection is None
    record = refused(attacked, before)[0]
    assert (record.actor["name"], record.actor["key"]) == ("alice", "")


@pytest.mark.attack("A4", "bob signs after an offer in alice's name: he is bob, with his key and in his environment")
def test_the_identity_is_that_of_the_signature(attacked: GatewayUnderFire) -> None:
    """A probe changes neither the name nor the key that are journaled."""
    before = len(attacked.records("login.allowed"))
    alice, bob = (key_pair(attacked.key(user)) for user in ("alice", "bob"))

    async def who() -> str:
        connection, _ = await intrude(attacked.port, [probe("alice", alice), signed("bob", bob)])
        assert connection is not None
        async with connection:
            return str((await connection.run("id -un")).stdout)

    assert asyncio.run(who()) == "bob\n"
    record = attacked.records("login.allowed")[before:][-1]
    assert (record.actor["name"], record.environment) == ("bob", "bob")
    assert record.actor["key"] == asyncssh_fingerprint(attacked)


def asyncssh_fingerprint(gateway: GatewayUnderFire) -> str:
    return asyncssh.read_public_key(f"{gateway.key('bob')}.pub").get_fingerprint()


HOSTILE_NAMES: list[str | bytes] = [
    # paths and options
    *("../alice", "alice/../bob", "/etc/passwd", ".", "-oProxyCommand=x", "--help", "alice\\..\\bob"),
    # separators, other spellings
    *("alice:bob", "alice@bob", "alice+", "+alice", "alice+main+main", "alice+../bob", "alice%main"),
    *("Alice", "ALICE", " alice", "alice ", "\uff41lice", "al\u0131ce", "alice\u200b"),
    # shells and terminals
    *("$(id)", "`id`", "alice;id", "alice|id", "%s%n", "{user}"),
    *(
        "alice\n2026-01-01 INFO root logged in",
        "alice\r\nroot",
        "alice\0",
        "\0alice",
        "\x1b]0;owned\x07",
        "\u202eecila",
    ),
    # no text, nothing, too much
    *(b"\xff\xfealice", b"", "a" * 1024, "\x00" * 100, "a" * 20_000),
]
"""None of them is somebody's, although alice's own key signs for each."""


@pytest.mark.attack("B1", "user names with paths, options, control characters, other spellings, no text, 20 kB")
def test_a_hostile_name_is_nobodys(attacked: GatewayUnderFire) -> None:
    """Refused like any stranger; one event each, cut and escaped; not a byte of it stands raw in log or journal."""
    alice = key_pair(attacked.key("alice"))
    before, allowed = len(attacked.records("login.refused")), len(attacked.records("login.allowed"))

    async def try_all() -> list[object]:
        outcomes = []
        for number, name in enumerate(HOSTILE_NAMES):
            # from two addresses, each of which may have so many refusals written down one by one
            source = f"127.0.0.{11 + number % 2}"
            outcomes.append((await intrude(attacked.port, [signed(name, alice)], source))[0])
        return outcomes

    assert asyncio.run(try_all()) == [None] * len(HOSTILE_NAMES)
    records = refused(attacked, before, len(HOSTILE_NAMES))
    assert len(records) == len(HOSTILE_NAMES)
    assert all(len(record.actor["name"]) <= 64 for record in records)
    assert {record.environment for record in records} == {""}
    assert len(attacked.records("login.allowed")) == allowed
    journal = b"".join(path.read_bytes() for path in (attacked.root / "journal").glob("*.jsonl"))
    assert journal
    assert journal.isascii()
    assert b"\0" not in journal
    assert b"\x1b" not in journal
    log = attacked.log()
    assert "root logged in" not in log
    assert log.replace("\n", "").isprintable()
    assert not (attacked.root.parent / "alice").exists()


@pytest.mark.attack("B1", "a name that becomes `alice` once normalised, and no name at all: attempts like any other")
@pytest.mark.parametrize("name", ["\uff41lice", "alice\u200b", b""])
def test_a_name_is_taken_verbatim_and_none_goes_unrecorded(attacked: GatewayUnderFire, name: str | bytes) -> None:
    """RFC 4013 would map the first two to alice; the empty name is the one asyncssh never reports as begun."""
    before = len(attacked.records("login.refused"))
    connection, _ = asyncio.run(intrude(attacked.port, [signed(name, key_pair(attacked.key("alice")))]))
    assert connection is None
    sent = name.decode() if isinstance(name, bytes) else name
    assert [record.actor["name"] for record in refused(attacked, before)] == [sent]


@pytest.mark.attack("B1", "`alice+bob`: an environment of alice's that there is not, never bob's")
def test_a_handle_does_not_lead_to_another_user(attacked: GatewayUnderFire) -> None:
    """She is told so once in; the journal says that it was alice."""
    alice = key_pair(attacked.key("alice"))

    async def run() -> tuple[int | None, str]:
        connection, _ = await intrude(attacked.port, [signed("alice+bob", alice)])
        assert connection is not None
        async with connection:
            done = await connection.run("id -un")
            return done.exit_status, f"{done.stdout}{done.stderr}"

    status, said = asyncio.run(run())
    assert status == 125
    assert "there is no environment 'alice+bob'" in said
    assert attacked.records("login.allowed")[-1].environment == "alice+bob"
    assert attacked.records("login.allowed")[-1].actor["name"] == "alice"
