"""A few seconds of `make soak-attacks`, and a user who takes every descriptor there is."""

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.fuzz.gateway_under_fire import gateway_under_fire
from tests.soak.__main__ import HEAD, RSS_MAX_MIB, SHIPPED, attack, row
from tests.soak.floods import FLOODS, Attacker, Deaf
from tests.soak.onlooker import Felt, be_shut_out

SECONDS = 8.0
DESCRIPTORS = 512
ASKED = 90
"""Forwards on each of four connections: more than the descriptors."""
BURST_DESCRIPTORS = 256
BURST = 120
"""Asked for on each of four connections without waiting for an answer."""
MORE = 40
"""Connections that she tries to have besides."""


@pytest.mark.attack("E33", "every flood of one user at once: memory stays bounded, others work on")
def test_all_attacks_of_one_user_at_once_stay_within_memory(tmp_path: Path) -> None:
    """How long others wait is printed; on a busy machine it says little, so it is not held here."""
    with gateway_under_fire(tmp_path, **SHIPPED) as gateway:
        felt = attack(gateway, list(FLOODS), SECONDS)
        print(f"\n{HEAD}\n{row('all at once', gateway, felt)}")
        assert gateway.peak_bytes() >> 20 < RSS_MAX_MIB
        assert felt.echoes
        assert felt.logins
        assert gateway.process.poll() is None


@pytest.mark.attack("E34", "a user who takes all descriptors they can: others log in, and an administrator acts")
def test_a_user_who_takes_all_descriptors_leaves_some_to_others(tmp_path: Path) -> None:
    """Alice is refused before the half that is everybody's is over; bob's login, program and forward work."""
    with gateway_under_fire(tmp_path, **SHIPPED, descriptors=DESCRIPTORS) as gateway:

        async def take() -> tuple[int, int, Felt]:
            alice = Attacker(gateway.port, str(gateway.key("alice")), 60)
            opened = refused = 0
            connections = [await alice.enter() for _ in range(4)]
            for connection in connections:
                for _ in range(ASKED):
                    try:
                        await connection.create_connection(Deaf, "localhost", 8888, window=1, encoding=None)
                        opened += 1
                    except asyncssh.ChannelOpenError:
                        refused += 1
            felt = Felt()
            done = await asyncio.to_thread(_works, gateway.ssh("bob"))
            assert done == b"here\n"
            bob = await Attacker(gateway.port, str(gateway.key("bob")), 60, "bob").enter()
            reader, writer = await bob.open_connection("localhost", 8888, encoding=None)
            writer.write(b"GET /?size=1000 HTTP/1.0\r\n\r\n")
            assert len(await reader.read()) >= 1000
            await be_shut_out(Attacker(gateway.port, str(gateway.key("carol")), 2, "carol"), felt, gateway.tell)
            for connection in [*connections, bob]:
                connection.abort()
            return opened, refused, felt

        opened, refused, felt = asyncio.run(take())
        assert DESCRIPTORS // 8 <= opened < DESCRIPTORS // 2
        assert opened + refused == 4 * ASKED
        assert 0 < max(felt.revocations) < 20
        assert gateway.holds_no_traceback()


@pytest.mark.attack("E39", "thousands of forwards and connections asked for at once, where there are 256 descriptors")
def test_a_burst_of_opens_never_takes_the_last_descriptors(tmp_path: Path) -> None:
    """Each is answered yes or no; alice's share ends while many are under way, and the last stay free meanwhile."""
    with gateway_under_fire(tmp_path, **SHIPPED, descriptors=BURST_DESCRIPTORS) as gateway:
        most = 0

        async def watch(burst: "asyncio.Future[Any]") -> None:
            nonlocal most
            while not burst.done():
                most = max(most, gateway.descriptors())
                await asyncio.sleep(0.001)

        async def ask(connection: asyncssh.SSHClientConnection) -> bool:
            try:
                await connection.create_connection(Deaf, "localhost", 8888, window=1, encoding=None)
            except asyncssh.ChannelOpenError:
                return False
            return True

        async def enter(alice: Attacker) -> "asyncssh.SSHClientConnection | None":
            try:
                return await alice.enter()
            except (asyncssh.Error, OSError):
                return None

        async def take() -> tuple[list[bool], int, Felt]:
            alice = Attacker(gateway.port, str(gateway.key("alice")), 120)
            connections = [await alice.enter() for _ in range(4)]
            burst = asyncio.gather(*(ask(connection) for connection in connections for _ in range(BURST)))
            await asyncio.gather(burst, watch(burst))
            more = [one for one in await asyncio.gather(*(enter(alice) for _ in range(MORE))) if one]
            done = await asyncio.to_thread(_works, gateway.ssh("bob"))
            assert done == b"here\n"
            felt = Felt()
            await be_shut_out(Attacker(gateway.port, str(gateway.key("carol")), 2, "carol"), felt, gateway.tell)
            for connection in [*connections, *more]:
                connection.abort()
            return burst.result(), len(more), felt

        answers, more, felt = asyncio.run(take())
        share = BURST_DESCRIPTORS // 8
        assert len(answers) == 4 * BURST
        assert share <= sum(answers) < BURST_DESCRIPTORS // 2
        assert more < MORE // 2
        assert most <= BURST_DESCRIPTORS - BURST_DESCRIPTORS // 16
        assert 0 < max(felt.revocations) < 20
        assert gateway.holds_no_traceback()


def _works(command: list[str]) -> bytes:
    said = subprocess.run(
        [*command, "echo here"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True
    )
    return said.stdout
