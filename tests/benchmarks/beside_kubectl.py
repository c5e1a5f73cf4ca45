"""The gateway on a cluster beside kubectl, for the same pod in one run; a Markdown table on stdout.

Run by `tests/setup/with_engine tests/setup/with_cluster .venv/bin/python -m tests.benchmarks.beside_kubectl`. Rows of a
pair follow one another within seconds. A wake is beside the bare pod: the same pod, made by kubectl, until its services
listen.
"""

import json
import os
import pty
import subprocess
import sys
import tempfile
import time
import tty
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from tests.benchmarks import stream
from tests.benchmarks.result import HEADER, Result
from tests.cluster.environments import NAMESPACE, cluster_variables, kubectl, objects
from tests.support.gateway_process import GatewayProcess
from tests.support.host_resources import free_port
from tests.support.ssh_clients import is_listening, poll

MIB = 1 << 20
_LISTENING = "until [ -S /run/devgw/ssh.sock ] && [ -S /run/devgw/notebook.sock ]; do sleep 0.02; done"
Values = dict[str, list[float]]


def streams(gateway: GatewayProcess, pod: str, size: int, rounds: int) -> Iterator[Result]:
    """Return rows of one stream each way to a program on a port of the pod."""
    port = _program(gateway)
    with ExitStack() as stack:
        tunnels = {
            "devgw": stack.enter_context(gateway.tunnel("alice", f"localhost:{port}")),
            "kubectl": stack.enter_context(_port_forward(pod, port)),
        }
        for name, move in (("download", stream.download), ("upload", stream.upload)):
            speed: Values = {"devgw": [], "kubectl": []}
            for local in tunnels.values():
                move(local, 4 * MIB)
            for turn in range(rounds):
                for route in _in_turn(turn):
                    speed[route].append(size / 1e6 / move(tunnels[route], size))
            yield _row(f"-L {name}", "kubectl port-forward", "MB/s", 1.0, speed, higher_is_better=True)


def keystrokes(gateway: GatewayProcess, pod: str, count: int, rounds: int) -> Iterator[Result]:
    """Return rows of one key's echo from a terminal in the pod."""
    script = "stty raw -echo; echo ready; exec cat"
    exec_it = ["kubectl", "-n", NAMESPACE, "exec", "-it", pod, "--", "sh", "-c", script]
    middle: Values = {"devgw": [], "kubectl": []}
    p99: Values = {"devgw": [], "kubectl": []}
    with _terminal(gateway.ssh_command("alice", "-tt", script)) as ours, _terminal(exec_it) as theirs:
        near = {"devgw": ours, "kubectl": theirs}
        for _ in range(rounds):
            samples: Values = {"devgw": [], "kubectl": []}
            for turn in range(count):
                for route in _in_turn(turn):
                    samples[route].append(_echo(near[route]) * 1000)
            for route, times in samples.items():
                middle[route].append(median(times))
                p99[route].append(quantiles(times, n=100)[98])
    yield _row("keystroke echo, median", "kubectl exec -it", "ms", 1.2, middle)
    yield _row("keystroke echo, p99", "kubectl exec -it", "ms", 1.2, p99)


def wakes(gateway: GatewayProcess, pod: str, rounds: int) -> Iterator[Result]:
    """Return the row of a start, until both services listen and, for devgw, it is judged ready and written down."""
    bare = _bare(json.loads(kubectl("-n", NAMESPACE, "get", "pod", pod, "-o", "json")))
    secret = json.loads(kubectl("-n", NAMESPACE, "get", "secret", pod, "-o", "json"))
    secret["metadata"] = {"name": "bare", "namespace": NAMESPACE}
    kubectl("apply", "-f", "-", text=json.dumps(secret))
    gateway.devgw("stop", "alice")
    taken: Values = {"devgw": [], "kubectl": []}
    for turn in range(rounds):
        for route in _in_turn(turn):
            taken[route].append(_seconds_of_start(gateway) if route == "devgw" else _seconds_of_pod(bare))
    kubectl("-n", NAMESPACE, "delete", "secret", "bare")
    yield _row("wake of a stopped environment", "the bare pod", "s", 1.25, taken)


def _seconds_of_start(gateway: GatewayProcess) -> float:
    """A command wakes it, so that the start of our own command line does not count."""
    began = time.perf_counter()
    assert gateway.ssh("alice", "true").returncode == 0
    taken = time.perf_counter() - began
    gateway.devgw("stop", "alice")
    return taken


def _seconds_of_pod(bare: dict[str, Any]) -> float:
    began = time.perf_counter()
    kubectl("create", "-f", "-", text=json.dumps(bare))
    kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "--timeout=120s", "pod/bare")
    kubectl("-n", NAMESPACE, "exec", "bare", "--", "sh", "-c", _LISTENING)
    taken = time.perf_counter() - began
    kubectl("-n", NAMESPACE, "delete", "pod", "bare", "--grace-period=1", "--wait=true")
    return taken


def _bare(made: dict[str, Any]) -> dict[str, Any]:
    """Return the same pod under another name and nobody's."""
    spec = {key: value for key, value in made["spec"].items() if key not in {"nodeName", "serviceAccountName"}}
    for volume in spec["volumes"]:
        if "secret" in volume:
            volume["secret"]["secretName"] = "bare"
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare", "namespace": NAMESPACE}, "spec": spec}


def _row(name: str, reference: str, unit: str, goal: float, both: Values, *, higher_is_better: bool = False) -> Result:
    return Result(name, reference, unit, goal, higher_is_better, tuple(both["devgw"]), tuple(both["kubectl"]))


def _in_turn(turn: int) -> tuple[str, str]:
    return ("devgw", "kubectl") if turn % 2 == 0 else ("kubectl", "devgw")


def _program(gateway: GatewayProcess) -> int:
    """Start the streaming program in alice's environment; return its port there."""
    source = Path(stream.__file__).read_bytes()
    assert gateway.ssh("alice", "cat >stream.py", stdin=source).returncode == 0
    start = "(setsid python3 stream.py /tmp/stream.sock >stream.port 2>&1 </dev/null &)"
    assert gateway.ssh("alice", start).returncode == 0
    return int(poll(lambda: _written(gateway), "the program's port", 30))


def _written(gateway: GatewayProcess) -> bytes:
    return gateway.ssh("alice", "cat stream.port").stdout.strip()


@contextmanager
def _port_forward(pod: str, port: int) -> Iterator[int]:
    local = free_port()
    command = ["kubectl", "-n", NAMESPACE, "port-forward", pod, f"{local}:{port}"]
    client = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        poll(lambda: is_listening(local), "kubectl's port", 30)
        yield local
    finally:
        client.terminate()
        client.wait(timeout=30)


@contextmanager
def _terminal(command: list[str]) -> Iterator[int]:
    """Run a client on a terminal of its own; yield our end."""
    near, far = pty.openpty()
    tty.setraw(far)
    client = subprocess.Popen(command, stdin=far, stdout=far, stderr=subprocess.DEVNULL)
    os.close(far)
    try:
        seen = b""
        while b"ready" not in seen:
            seen += os.read(near, 1000)
        yield near
    finally:
        client.terminate()
        client.wait(timeout=30)
        os.close(near)


def _echo(terminal: int) -> float:
    began = time.perf_counter()
    os.write(terminal, b"x")
    while b"x" not in os.read(terminal, 100):
        pass
    return time.perf_counter() - began


def measure(gateway: GatewayProcess, *, short: bool) -> Iterator[Result]:
    """Yield all rows."""
    (name,) = objects("pods")
    pod = name.removeprefix("pod/")
    yield from keystrokes(gateway, pod, 100 if short else 400, 3 if short else 5)
    yield from streams(gateway, pod, 32 * MIB if short else 256 * MIB, 3 if short else 7)
    yield from wakes(gateway, pod, 2 if short else 5)


def main(words: list[str]) -> int:
    """Run them; `--short` is quick and rough."""
    with tempfile.TemporaryDirectory() as directory:
        gateway = GatewayProcess(Path(directory), cluster_variables())
        try:
            gateway.devgw("init")
            gateway.create("alice")
            gateway.serve()
            print(f"load before: {' '.join(f'{load:.1f}' for load in os.getloadavg())}\n\n{HEADER}", flush=True)
            for result in measure(gateway, short="--short" in words):
                print(result.row(), flush=True)
        finally:
            gateway.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
