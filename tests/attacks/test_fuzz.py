"""Row E, the rest: ten thousand changed handshakes and channel messages; `make fuzz` runs more of them for longer."""

import asyncio
import os
import time
from collections.abc import Coroutine, Iterator
from random import Random
from typing import Any

import pytest

from gateway.audit.verify import verify
from tests.attacks.second_user import second_user
from tests.fuzz.campaign import Campaign
from tests.fuzz.gateway_under_fire import GatewayUnderFire, gateway_under_fire
from tests.fuzz.mutation import mutated, shuffled
from tests.fuzz.recording import login

SEED = int(os.environ.get("FUZZ_SEED") or 1)
BEFORE_LOGIN, AFTER_LOGIN = 7000, 3000
"""A case after the login costs three times one before it: many end their connection, and the next one must log in."""


@pytest.fixture
def under_fire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayUnderFire]:
    with gateway_under_fire(tmp_path_factory.mktemp("fuzz")) as gateway:
        yield gateway


def fire(campaign: Campaign, cases: Coroutine[Any, Any, None]) -> None:
    """Run cases while bob works; afterwards alice gets in and the journal holds."""
    began, gateway = time.monotonic(), campaign.gateway

    async def run() -> bytes:
        await campaign.begin()
        await cases
        async with await login(gateway) as connection:
            return bytes((await connection.run("echo hi", encoding=None)).stdout or b"")

    with second_user(gateway):
        assert asyncio.run(run()) == b"hi\n"
    campaign.check("all")
    print(campaign.report(began))
    assert verify(gateway.root / "journal").problem is None


@pytest.mark.slow
@pytest.mark.attack("E16", "7,000 handshakes changed at random: each is hung up on; memory bounded, no exception")
def test_changed_handshakes_cost_their_own_connection_only(under_fire: GatewayUnderFire) -> None:
    """Bits, lengths, types and the order of messages are changed; the gateway lives on within its memory."""
    campaign = Campaign(under_fire, SEED)
    fire(campaign, campaign.before_login(range(BEFORE_LOGIN)))
    assert campaign.cases == BEFORE_LOGIN


@pytest.mark.slow
@pytest.mark.attack("E17", "3,000 channel messages changed at random: answered or hung up on; memory bounded")
def test_changed_channel_messages_cost_their_own_connection_only(under_fire: GatewayUnderFire) -> None:
    """What a logged-in user's client might say goes no further than their own connection."""
    campaign = Campaign(under_fire, SEED)
    fire(campaign, campaign.after_login(range(BEFORE_LOGIN, BEFORE_LOGIN + AFTER_LOGIN)))
    assert campaign.cases == AFTER_LOGIN


def test_a_case_is_made_again_from_its_seed() -> None:
    """The same generator makes the same changes, and another one others."""
    recorded = [bytes(range(64)) * 4, b"\x5a" + bytes(200), b"SSH-2.0-client\r\n"]

    def case(seed: str) -> list[bytes]:
        chance = Random(seed)
        return [mutated(chance, message) for message in shuffled(chance, recorded)]

    assert [case(f"1:{number}") for number in range(200)] == [case(f"1:{number}") for number in range(200)]
    assert len({tuple(case(f"1:{number}")) for number in range(200)}) > 150
