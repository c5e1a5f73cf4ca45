"""Rows about many users: logins, idle tunnels, and how soon a keystroke comes back."""

import json
import os
import pty
import subprocess
import sys
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import quantiles
from typing import Any

from tests.benchmarks.processes import cpu_seconds, pss_bytes
from tests.benchmarks.result import Result
from tests.benchmarks.rig import ROUTES, Rig


def logins(rig: Rig, count: int, rounds: int) -> Iterator[Result]:
    """Connect, log in, first byte: one at a time and 16 at a time, towards the gateway and towards OpenSSH."""
    for kind, what in (("forward", "notebook"), ("exec", "program")):
        _log_in(rig, "devgw", kind, 2, 1)  # the connection to the environment is made once, then shared
        alone = {"devgw": list[float](), "direct": list[float]()}
        many = {"devgw": list[float](), "direct": list[float]()}
        cost = {"devgw": list[float](), "direct": list[float]()}
        for _ in range(rounds):
            for route, times in alone.items():
                times.append(_middle(_log_in(rig, route, kind, max(4, count // 8), 1)["each"]) * 1000)
                servers = rig.servers(route, notebook=kind == "forward")
                before = cpu_seconds(servers)
                many[route].append(count / _log_in(rig, route, kind, count, 16)["all"])
                time.sleep(0.3)  # sshd reaps its children
                cost[route].append((cpu_seconds(servers) - before) / count * 1000)
        pairs = tuple(alone["devgw"]), tuple(alone["direct"])
        yield Result(f"connect, login, first byte of the {what}", "direct", "ms", 0.25, False, *pairs)
        pairs = tuple(many["devgw"]), tuple(many["direct"])
        yield Result(f"logins to the {what}, 16 at a time", "direct", "/s", 2.0, True, *pairs)
        pairs = tuple(cost["devgw"]), tuple(cost["direct"])
        yield Result(f"server CPU of a login to the {what}", "direct", "ms", 0.5, False, *pairs)


def commands(rig: Rig, count: int) -> Iterator[Result]:
    """`ssh HOST true` with OpenSSH's own client, its start and end included, through each route in turn."""
    taken: dict[str, list[float]] = {route: [] for route in ROUTES}
    for turn in range(count):
        for route in ROUTES[turn % 3 :] + ROUTES[: turn % 3]:
            began = time.perf_counter()
            subprocess.run(rig.command("ssh", route, "true"), check=True, stdin=subprocess.DEVNULL, timeout=60)
            taken[route].append((time.perf_counter() - began) * 1000)
    for route in ("direct", "jump"):
        yield Result("`ssh HOST true`", route, "ms", 1.0, False, tuple(taken["devgw"]), tuple(taken[route]))


def judged_logins(rig: Rig, count: int, rounds: int) -> Iterator[Result]:
    """The same login with the policy asked and the journal written, and without."""
    taken = {"devgw": list[float](), "bare": list[float]()}
    for route in taken:
        _log_in(rig, route, "forward", 2, 1)
    for _ in range(rounds):
        for route, times in taken.items():
            times.append(_middle(_log_in(rig, route, "forward", count, 1)["each"]) * 1000)
    pairs = tuple(taken["devgw"]), tuple(taken["bare"])
    yield Result("connect, login, first byte of the notebook", "no policy, no journal", "ms", 1.3, False, *pairs)


def idle_tunnels(rig: Rig, count: int) -> Iterator[Result]:
    """Memory of connections with one idle channel each, as PSS of all server processes."""
    grown = {}
    for route in ("devgw", "direct"):
        servers = rig.servers(route, notebook=True)
        before = pss_bytes(servers)
        with held(rig, route, count):
            time.sleep(1)
            grown[route] = (pss_bytes(servers) - before) / count / 1024
        time.sleep(1)
    name = f"memory per idle tunnel, {count:,} of them"
    yield Result(name, "direct", "KiB", 0.05, False, (grown["devgw"],), (grown["direct"],))


def keystrokes(rig: Rig, count: int, rounds: int) -> Iterator[Result]:
    """Type into a terminal and wait for the echo; the 99th percentile and the median of each round."""
    p99: dict[str, list[float]] = {"devgw": [], "jump": []}
    middle: dict[str, list[float]] = {"devgw": [], "jump": []}
    with _terminal(rig, "devgw") as ours, _terminal(rig, "jump") as theirs:
        for _ in range(rounds):
            samples: dict[str, list[float]] = {"devgw": [], "jump": []}
            for _ in range(count):  # alternating, so that both meet the same load
                samples["devgw"].append(_echo(ours))
                samples["jump"].append(_echo(theirs))
            for route, times in samples.items():
                p99[route].append(quantiles(times, n=100)[98] * 1000)
                middle[route].append(_middle(times) * 1000)
    yield Result("keystroke echo, p99", "jump", "ms", 1.0, False, tuple(p99["devgw"]), tuple(p99["jump"]))
    yield Result("keystroke echo, median", "jump", "ms", 1.0, False, tuple(middle["devgw"]), tuple(middle["jump"]))


def _middle(times: list[float]) -> float:
    return sorted(times)[len(times) // 2]


def _client(rig: Rig, route: str, kind: str, count: int, at_once: int) -> list[str]:
    port = rig.ports[route if route in ("devgw", "bare") else "inner"]
    notebook = rig.notebook["devgw" if route == "bare" else route]
    arguments = [str(rig.root / "alice"), str(port), str(notebook), kind, str(count), str(at_once)]
    return [sys.executable, "-m", "tests.benchmarks.clients", *arguments]


def _log_in(rig: Rig, route: str, kind: str, count: int, at_once: int) -> Any:
    command = _client(rig, route, kind, count, at_once)
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=600).stdout)


@contextmanager
def held(rig: Rig, route: str, count: int) -> Iterator[None]:
    """Keep so many connections open, with one idle tunnel each."""
    command = _client(rig, route, "hold", count, 16)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdin
    try:
        assert int(process.stdout.readline()) == count
        yield
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


@contextmanager
def _terminal(rig: Rig, route: str) -> Iterator[int]:
    """Run `cat` on a far terminal that echoes nothing itself; yield the near one's descriptor."""
    near, far = pty.openpty()
    tty.setraw(far)
    command = rig.command("ssh", "-tt", route, "stty raw -echo; echo ready; exec cat")
    process = subprocess.Popen(command, stdin=far, stdout=far, stderr=subprocess.DEVNULL)
    os.close(far)
    try:
        seen = b""
        while b"ready" not in seen:
            seen += os.read(near, 1000)
        time.sleep(0.3)
        yield near
    finally:
        process.terminate()
        process.wait(10)
        os.close(near)


def _echo(terminal: int) -> float:
    began = time.perf_counter()
    os.write(terminal, b"x")
    while b"x" not in os.read(terminal, 100):
        pass
    return time.perf_counter() - began
