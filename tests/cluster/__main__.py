"""`python -m tests.cluster run COMMAND…` runs it beside a cluster; there also `import TAR`, `cut NODE`, `heal NODE`."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.cluster.cluster import Cluster
from tests.cluster.programs import cache, make_ready, say

_PLACE = "DEVGW_TEST_CLUSTER"
"""Where a command finds who holds the cluster: a file with the nodes' process numbers."""
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
            place.write_text(json.dumps({"nodes": nodes, "hub": cluster.hub.pid}))
            environment = os.environ | {"KUBECONFIG": str(cluster.admin), _PLACE: str(place)}
            entered = [*cluster.enter(), *command]
            return subprocess.run(entered, env=environment, timeout=_LONGEST_SECONDS, check=False).returncode
        except Exception:
            _say_why(cluster)
            raise
        finally:
            cluster.end()


def _say_why(cluster: Cluster) -> None:
    for log in sorted(cluster.root.rglob("*.log")):
        lines = log.read_text(errors="replace").splitlines()[-4:]
        print(f"== {log.name} of {log.parent.name}", *lines, sep="\n", file=sys.stderr)


def _place() -> dict[str, object]:
    if _PLACE not in os.environ:
        say("error: no cluster here; begin the command with tests/setup/with_cluster")
        raise SystemExit(1)
    return dict(json.loads(Path(os.environ[_PLACE]).read_text()))


def _import(archive: str) -> int:
    for pid in _place()["nodes"].values():  # type: ignore[attr-defined]
        command = [
            "nsenter", "--target", str(pid), "--net", "--mount", "--uts", "--pid", "--",
            "ctr", "-a", "/run/containerd/containerd.sock", "-n", "k8s.io",
            "images", "import", str(Path(archive).resolve()),
        ]  # fmt: skip
        subprocess.run(command, check=True, timeout=900)
    return 0


def _set_link(node: str, state: str) -> int:
    hub = str(_place()["hub"])
    command = ["nsenter", "--target", hub, "--net", "--", "ip", "link", "set", f"to-{node}", state]
    return subprocess.run(command, check=False, timeout=60).returncode


def main() -> int:
    match sys.argv[1:]:
        case ["run", *command] if command:
            return _run(command)
        case ["import", archive]:
            return _import(archive)
        case ["cut", node]:
            return _set_link(node, "down")
        case ["heal", node]:
            return _set_link(node, "up")
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
