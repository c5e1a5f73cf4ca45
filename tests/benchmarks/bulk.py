"""Rows about many bytes: streams through `-L`, and files by sftp, scp and rsync."""

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks.processes import cpu_seconds
from tests.benchmarks.result import Result
from tests.benchmarks.rig import ROUTES, Rig
from tests.benchmarks.stream import download, upload

GCM = ("-c", "aes128-gcm@openssh.com")
Values = dict[str, list[float]]


def streams(rig: Rig, size: int, rounds: int, options: Sequence[str] = (), floor: str = "") -> Iterator[Result]:
    """One stream each way, the three routes in turn; speed and the processor time of the servers."""
    shown = "aes128-gcm for all" if options else "default ciphers"
    with ExitStack() as stack:
        ports = {route: stack.enter_context(rig.tunnel(route, *options)) for route in ROUTES}
        for name, move in (("download", download), ("upload", upload)):
            for port in ports.values():
                move(port, 16 << 20)  # past the start of TCP and the change of ciphers
            speed: Values = {route: [] for route in ROUTES}
            cost: Values = {route: [] for route in ROUTES}
            for turn in range(rounds):
                for route in _in_turn(turn):
                    servers = rig.servers(route, notebook=True)
                    before = cpu_seconds(servers)
                    speed[route].append(size / 1e6 / move(ports[route], size))
                    cost[route].append((cpu_seconds(servers) - before) / size * 1e9)
            for route, goal in (("jump", 1.0), ("direct", 0.8)):
                title = f"-L {name}, {shown}"
                yield Result(title, route, "MB/s", goal, True, tuple(speed["devgw"]), tuple(speed[route]), floor)
            title = f"server CPU of -L {name}, {shown}"
            yield Result(title, "jump", "s/GB", 1.2, False, tuple(cost["devgw"]), tuple(cost["jump"]), floor)


def files(rig: Rig, size: int, count: int, rounds: int) -> Iterator[Result]:
    """A large file by sftp and scp, each way, and many small ones by rsync; speeds and processor time."""
    large, small = rig.root / "large", rig.root / "small"
    subprocess.run(
        ["dd", "if=/dev/urandom", f"of={large}", "bs=1M", f"count={size >> 20}", "status=none"], check=True, timeout=600
    )
    _make_tree(small, count)
    far = f"/tmp/{rig.root.name}-far"
    moves: list[tuple[str, Callable[[str], list[str]], float]] = [
        ("sftp put", lambda route: rig.command("sftp", "-b", str(_batch(rig, f"put {large} {far}")), route), size),
        ("sftp get", lambda route: rig.command("sftp", "-b", str(_batch(rig, f"get {far} {large}.got")), route), size),
        ("scp put", lambda route: rig.command("scp", "-q", str(large), f"{route}:{far}"), size),
        ("scp get", lambda route: rig.command("scp", "-q", f"{route}:{far}", f"{large}.got"), size),
    ]
    try:
        for name, command, amount in moves:
            yield from _compare(rig, name, command, amount / 1e6, "MB/s", rounds)
        assert large.read_bytes() == Path(f"{large}.got").read_bytes(), "a file came back changed"
        shell = " ".join(rig.command("ssh"))
        yield from _compare(
            rig,
            f"rsync of {count:,} small files",
            lambda route: ["rsync", "-a", "--delete", "--whole-file", "-e", shell, f"{small}/", f"{route}:{far}.tree/"],
            float(count),
            "files/s",
            rounds,
            fresh=lambda: subprocess.run(["rm", "-rf", f"{far}.tree"], check=True, timeout=600),
        )
    finally:
        subprocess.run(["rm", "-rf", far, f"{far}.tree"], check=True, timeout=600)


def _compare(
    rig: Rig,
    name: str,
    command: Callable[[str], list[str]],
    amount: float,
    unit: str,
    rounds: int,
    fresh: Callable[[], object] = lambda: None,
) -> Iterator[Result]:
    rate: Values = {"devgw": [], "jump": []}
    cost: Values = {"devgw": [], "jump": []}
    for turn in range(rounds):
        for route in ("devgw", "jump") if turn % 2 == 0 else ("jump", "devgw"):
            fresh()
            before, began = cpu_seconds(rig.servers(route)), time.perf_counter()
            subprocess.run(command(route), check=True, stdout=subprocess.DEVNULL, timeout=600)
            rate[route].append(amount / (time.perf_counter() - began))
            cost[route].append(cpu_seconds(rig.servers(route)) - before)
    yield Result(name, "jump", unit, 0.9, True, tuple(rate["devgw"]), tuple(rate["jump"]))
    yield Result(f"server CPU of {name}", "jump", "s", 1.2, False, tuple(cost["devgw"]), tuple(cost["jump"]))


def _in_turn(turn: int) -> Sequence[str]:
    """Begin with another route each time: what runs first meets other caches."""
    return ROUTES[turn % len(ROUTES) :] + ROUTES[: turn % len(ROUTES)]


def _batch(rig: Rig, line: str) -> Path:
    path = rig.root / "batch"
    path.write_text(line + "\n")
    return path


def _make_tree(root: Path, count: int) -> None:
    for number in range(count):
        if number % 100 == 0:
            (root / str(number // 100)).mkdir(parents=True)
        (root / str(number // 100) / f"{number}.txt").write_bytes(b"%08d\n" % number * 200)
