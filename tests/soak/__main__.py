"""`make soak-attacks`: all attacks of alice at once for SECONDS, and what bob and carol feel; exit 1 at 300 MiB.

`--each` runs them one after the other instead, SECONDS each, first none of them: a table with a row for each.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.fuzz.gateway_under_fire import GatewayUnderFire, gateway_under_fire
from tests.soak.floods import FLOODS, Attacker
from tests.soak.onlooker import Felt, be_shut_out, log_in, share, type_keys

RSS_MAX_MIB = 300
END_SECONDS = 60
SHIPPED = {"max_connections_per_user": 32}
HEAD = f"{'attack':<18} {'RSS':>5} {'most':>5} {'echo p50':>9} {'p99':>7} {'login p50':>10} {'most':>6} {'revoked':>8}"


async def watch(gateway: GatewayUnderFire, seconds: float, tell: Callable[[str], None]) -> Felt:
    """Let bob and carol work for so long."""
    felt = Felt()
    bobs = [Attacker(gateway.port, str(gateway.key("bob")), seconds, "bob") for _ in range(2)]
    carol = Attacker(gateway.port, str(gateway.key("carol")), seconds, "carol")
    await asyncio.gather(type_keys(bobs[0], felt), log_in(bobs[1], felt), be_shut_out(carol, felt, tell))
    return felt


def attack(gateway: GatewayUnderFire, names: Sequence[str], seconds: float) -> Felt:
    """Run some attacks, each in a process of its own, and the others beside them."""
    command = [sys.executable, "-m", "tests.soak.floods"]
    arguments = [str(gateway.port), str(gateway.key("alice")), str(seconds)]
    attackers = [subprocess.Popen([*command, name, *arguments], stdout=subprocess.DEVNULL) for name in names]
    try:
        return asyncio.run(watch(gateway, seconds, gateway.tell))
    finally:
        for attacker in attackers:
            attacker.terminate()
            attacker.wait(END_SECONDS)


def row(name: str, gateway: GatewayUnderFire, felt: Felt) -> str:
    """Describe what one attack did; times in milliseconds, memory in MiB."""
    echo, login = felt.echoes, felt.logins
    times = [share(echo, 0.5), share(echo, 0.99), share(login, 0.5), max(login, default=0.0)]
    shown = [f"{value * 1000:.0f}" for value in [*times, max(felt.revocations, default=float("inf"))]]
    rss, most = gateway.resident_bytes() >> 20, gateway.peak_bytes() >> 20
    return f"{name:<18} {rss:>5} {most:>5} {shown[0]:>9} {shown[1]:>7} {shown[2]:>10} {shown[3]:>6} {shown[4]:>8}"


def main() -> int:
    """Run and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--each", action="store_true")
    parser.add_argument("names", nargs="*", choices=[[], *FLOODS], default=[])
    options = parser.parse_args()
    names = options.names or list(FLOODS)
    with tempfile.TemporaryDirectory(prefix="devgw-soak-", dir="/tmp") as root:
        Path(root).chmod(0o755)
        with gateway_under_fire(Path(root), **SHIPPED) as gateway:
            print(HEAD, flush=True)
            rounds = [("none", []), *((name, [name]) for name in names)] if options.each else [("all at once", names)]
            for title, chosen in rounds:
                print(row(title, gateway, attack(gateway, chosen, options.seconds)), flush=True)
                time.sleep(1)
            most = gateway.peak_bytes() >> 20
    print(f"most memory: {most} MiB of {RSS_MAX_MIB}")
    return 1 if most >= RSS_MAX_MIB else 0


if __name__ == "__main__":
    sys.exit(main())
