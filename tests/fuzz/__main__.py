"""`make fuzz`: cases until FUZZ_SECONDS are over, from FUZZ_SEED on or a seed of the clock's."""

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.attacks.second_user import second_user
from tests.fuzz.campaign import Campaign, Finding
from tests.fuzz.gateway_under_fire import gateway_under_fire

ROUND = 2000


async def run(campaign: Campaign, seconds: float) -> str:
    """Alternate between strangers and a logged-in user; return what was done."""
    began = time.monotonic()
    await campaign.begin()
    number = 0
    while time.monotonic() - began < seconds:
        await campaign.before_login(range(number, number + ROUND))
        await campaign.after_login(range(number + ROUND, number + 2 * ROUND))
        number += 2 * ROUND
        print(campaign.report(began), flush=True)
    return campaign.report(began)


def main() -> int:
    seed = int(os.environ.get("FUZZ_SEED") or time.time())
    seconds = float(os.environ.get("FUZZ_SECONDS") or 600)
    with tempfile.TemporaryDirectory(prefix="devgw-fuzz-") as root, gateway_under_fire(Path(root)) as gateway:
        try:
            with second_user(gateway):
                asyncio.run(run(Campaign(gateway, seed), seconds))
        except Finding as finding:
            print(f"fuzz: error: {finding}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
