"""`python -m tests.cluster run COMMAND…` runs it beside a cluster. There also:

`import TAR` into both nodes, `give-all TAR` for what later clusters have from the start, `cut NODE` and `heal NODE`
(its cable), `kill PROGRAM` and `start PROGRAM` (such as `n1/kubelet`, `n1/containerd`, `apiserver`, `etcd`), and
`on NODE COMMAND…`.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster
from tests.cluster.kept_images import image_id, keep, seed
from tests.cluster.namespaces import kill_program
from tests.cluster.programs import cache, make_ready, say

_PLACE = "DEVGW_TEST_CLUSTER"
"""Where a command finds who holds the cluster: a file with the nodes' process numbers."""
_IMPORT = ("ctr", "-a", "/run/containerd/containerd.sock", "-n", "k8s.io", "images", "import")
_LONGEST_SECONDS = 6 * 3600.0
"""For which a command may have the cluster."""


def _run(command: list[str]) -> int:
    if os.geteuid() != 0:
        say("error: a cluster needs root: network namespaces and mounts")
        return 1
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))  # the cluster ends with whoever began it
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one at a time: they have the same addresses inside, and much memory
        make_ready()
        cluster = Cluster(Path(tempfile.mkdtemp(prefix="run-", dir=cache())))
        try:
            cluster.start()
            place = cluster.root / "place.json"
            nodes = {node.name: node.namespaces.pid for node in cluster.nodes}
            place.write_text(json.dumps({"nodes": nodes, "hub": cluster.hub.pid, "programs": cluster.programs(),
                                         "root": str(cluster.root)}))  # fmt: skip
            environment = os.environ | {"KUBECONFIG": str(cluster.admin), _PLACE: str(place)}
            entered = [*cluster.enter(), *command]
            return subprocess.run(entered, env=environment, timeout=_LONGEST_SECONDS, check=False).returncode
        except Exception:
            _say_why(cluster)
            raise
        finally:
            _kill_restarted(cluster.root / "place.json")
            cluster.end()


def _say_why(cluster: Cluster) -> None:
    for log in sorted(cluster.root.rglob("*.log")):
        lines = log.read_text(errors="replace").splitlines()[-4:]
        print(f"== {log.name} of {log.parent.name}", *lines, sep="\n", file=sys.stderr)


def _place() -> dict[str, Any]:
    if _PLACE not in os.environ:
        say("error: no cluster here; begin the command with tests/setup/with_cluster")
        raise SystemExit(1)
    return dict(json.loads(Path(os.environ[_PLACE]).read_text()))


def _import(archive: str) -> int:
    for node in _place()["nodes"]:
        if code := _on(node, *_IMPORT, str(Path(archive).resolve())):
            return code
    return 0


def _give_all(archive: str) -> int:
    """Import an archive into one node, keep what it has then, and give the other node the same."""
    place = _place()
    first, *others = place["nodes"]
    if code := _on(first, *_IMPORT, str(Path(archive).resolve())):
        return code
    for node in place["nodes"]:
        _kill(f"{node}/containerd")
    keep(Path(place["root"]) / first / "containerd", wanted := image_id())
    for node in others:
        seed(Path(place["root"]) / node / "containerd", wanted)
    for node in place["nodes"]:
        _start(f"{node}/containerd")
    return 0


def _on(node: str, *command: str) -> int:
    entered = ["nsenter", "--target", str(_place()["nodes"][node]), "--net", "--mount", "--uts", "--pid", "--"]
    return subprocess.run([*entered, *command], check=False, timeout=900).returncode


def _kill(name: str) -> int:
    """Kill a program as a crash does; what it runs in namespaces of its own goes on."""
    kill_program(_place()["programs"][name]["pid"])
    return 0


def _start(name: str) -> int:
    """Start a program again with its own command line."""
    place = _place()
    program = place["programs"][name]
    with Path(program["log"]).open("ab") as log:
        process = subprocess.Popen(
            program["command"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    program.update(pid=process.pid, was_restarted=True)
    Path(os.environ[_PLACE]).write_text(json.dumps(place))
    return 0


def _kill_restarted(place: Path) -> None:
    """Kill what `start` began, of which this process is no parent."""
    programs = json.loads(place.read_text())["programs"] if place.exists() else {}
    for program in programs.values():
        if program.get("was_restarted"):
            kill_program(program["pid"])


def _set_link(node: str, state: str) -> int:
    hub = str(_place()["hub"])
    command = ["nsenter", "--target", hub, "--net", "--", "ip", "link", "set", f"to-{node}", state]
    return subprocess.run(command, check=False, timeout=60).returncode


def main() -> int:
    match sys.argv[1:]:
        case ["run", *command] if command:
            return _run(command)
        case ["on", node, *command] if command:
            return _on(node, *command)
        case ["cut" | "heal" as word, node]:
            return _set_link(node, "down" if word == "cut" else "up")
        case ["import" | "give-all" | "kill" | "start" as word, name]:
            return {"import": _import, "give-all": _give_all, "kill": _kill, "start": _start}[word](name)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
