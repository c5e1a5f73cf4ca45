"""The whole cluster: a switch in a network namespace of its own, the control plane beside it, and two nodes.

Who talks to it enters that namespace (`Cluster.enter`): there is the API server, and from there pods answer.
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from contextlib import suppress
from pathlib import Path

from tests.cluster.kept_images import image_id, seed
from tests.cluster.keys import Keys
from tests.cluster.namespaces import Namespaces, wait_for
from tests.cluster.node import PAUSE_IMAGE, Node, program_of
from tests.cluster.programs import program, say

ADDRESS = "10.93.0.1"
_URL = f"https://{ADDRESS}:6443"
_ETCD = "http://127.0.0.1:2379"
_CGROUPS = Path("/sys/fs/cgroup")
_VOLUMES = 96
_STORAGE_CLASS = "shared"


class Cluster:
    """Two nodes with two GPUs each, a storage class, a namespace `devgw`. `root` is an empty directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._memory = Path("/dev/shm") / f"devgw-cluster-{os.getpid()}"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._made: list[Namespaces | Node] = []
        self.nodes: list[Node] = []

    def start(self) -> None:
        """Bring everything up. Raises: TimeoutError, RuntimeError, with what did not come."""
        began = time.monotonic()
        self.hub = Namespaces("--net", "--uts", setup="hostname hub")
        self._made.append(self.hub)
        self._make_switch()
        self.keys = Keys(self.root / "keys", _URL, (ADDRESS, "127.0.0.1", "10.96.0.1"))
        self.admin = self.keys.kubeconfig("admin", "system:masters")
        self._start_control_plane()
        self._start_nodes()
        self._make_objects()
        say(f"two nodes are ready after {time.monotonic() - began:.0f} s")

    def enter(self) -> list[str]:
        """Return the beginning of a command line that runs where the API server answers."""
        return self.hub.enter("net", "uts")

    def _make_switch(self) -> None:
        for command in (
            ("ip", "link", "set", "lo", "up"),
            ("ip", "link", "add", "switch", "type", "bridge"),
            ("ip", "addr", "add", f"{ADDRESS}/24", "dev", "switch"),
            ("ip", "link", "set", "switch", "up"),
        ):
            self._in_hub(*command)

    def _in_hub(self, *command: str) -> None:
        subprocess.run([*self.enter(), *command], check=True, timeout=60, stdin=subprocess.DEVNULL)

    def _start(self, name: str, *command: str) -> None:
        with (self.root / f"{name}.log").open("ab") as log:
            entered = [*self.enter(), *command]
            process = subprocess.Popen(
                entered, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._running[name] = process

    def programs(self) -> dict[str, dict[str, object]]:
        """Return what runs, by name: its process, its command line, and where it writes."""
        found = {name: program_of(process, self.root / f"{name}.log") for name, process in self._running.items()}
        for node in self.nodes:
            found |= {f"{node.name}/{name}": one for name, one in node.programs().items()}
        return found

    def _start_control_plane(self) -> None:
        keys = self.keys
        managers = {
            name: keys.kubeconfig(f"system:{name}", "") for name in ("kube-controller-manager", "kube-scheduler")
        }
        self._node_configs = [keys.kubeconfig(f"system:node:n{number}", "system:nodes") for number in (1, 2)]
        self._memory.mkdir(mode=0o700)
        self._start("etcd", "/usr/bin/etcd", f"--data-dir={self._memory}/etcd", f"--listen-client-urls={_ETCD}",
                    f"--advertise-client-urls={_ETCD}", "--listen-peer-urls=http://127.0.0.1:2380")  # fmt: skip
        self._start(
            "apiserver", program("kube-apiserver"), f"--etcd-servers={_ETCD}", "--allow-privileged=false",
            f"--bind-address={ADDRESS}", f"--advertise-address={ADDRESS}", "--service-cluster-ip-range=10.96.0.0/16",
            f"--tls-cert-file={keys.path('apiserver.crt')}", f"--tls-private-key-file={keys.path('apiserver.key')}",
            f"--client-ca-file={keys.path('ca.crt')}", f"--token-auth-file={keys.write_tokens()}",
            "--authorization-mode=Node,RBAC", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={keys.path('service-accounts.key')}",
            f"--service-account-key-file={keys.path('service-accounts.pub')}",
            f"--kubelet-client-certificate={keys.path('kubelet-client.crt')}",
            f"--kubelet-client-key={keys.path('kubelet-client.key')}",
            "--kubelet-preferred-address-types=InternalIP", "--enable-admission-plugins=NodeRestriction",
        )  # fmt: skip
        # the controller manager waits ten seconds for it, then ends
        wait_for(lambda: self._answers("get", "--raw", "/readyz"), "the API server", 180)
        self._start(
            "controller-manager", program("kube-controller-manager"),
            f"--kubeconfig={managers['kube-controller-manager']}", "--use-service-account-credentials=true",
            f"--service-account-private-key-file={keys.path('service-accounts.key')}",
            f"--root-ca-file={keys.path('ca.crt')}", "--leader-elect=false",
            "--node-monitor-period=1s", "--node-monitor-grace-period=12s",
        )  # fmt: skip
        self._start("scheduler", program("kube-scheduler"), f"--kubeconfig={managers['kube-scheduler']}",
                    "--leader-elect=false")  # fmt: skip

    def _start_nodes(self) -> None:
        for number, kubeconfig in enumerate(self._node_configs, start=1):
            gpus = tuple(f"GPU-{number}{index}000000-0000-4000-8000-000000000000" for index in range(2))
            node = Node(number, self.root / f"n{number}", kubeconfig, self.keys.path("ca.crt"), gpus)
            node.make()
            self._made.append(node)
            self.nodes.append(node)
        pause, wanted = self._pause_image(), image_id()
        for node in self.nodes:
            seed(node.root / "containerd", wanted)
            self._plug_in(node)
            node.connect(self.nodes)
            node.start_containerd()
        for node in self.nodes:
            self._in_hub("ip", "route", "add", node.pods, "via", node.address)
            wait_for(node.has_containerd, "containerd")
            node.import_image(pause)
            node.start_kubelet()
            node.start_plugin()
        wait_for(self._all_ready, "the nodes", 180)

    def _plug_in(self, node: Node) -> None:
        end, inner = f"to-{node.name}", str(node.namespaces.pid)
        self._in_hub("ip", "link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", inner)
        self._in_hub("ip", "link", "set", end, "master", "switch")
        self._in_hub("ip", "link", "set", end, "up")

    def _all_ready(self) -> bool:
        said = self._answers("get", "nodes", "-o", "json")
        if not said:
            return False
        nodes = json.loads(said)["items"]
        return len(nodes) == len(self.nodes) and all(
            node["status"]["allocatable"].get("nvidia.com/gpu") == "2"
            and any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"]["conditions"])
            for node in nodes
        )

    def _pause_image(self) -> Path:
        """Make the image of a pod's first process: a busybox that sleeps."""
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            tar.add(shutil.which("busybox") or "/bin/busybox", "busybox")
        digest = f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"
        config = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [digest]},
            "config": {"Entrypoint": ["/busybox", "sleep", "2147483647"]},
        }
        manifest = [{"Config": "config.json", "RepoTags": [PAUSE_IMAGE], "Layers": ["layer.tar"]}]
        path = self.root / "pause.tar"
        with tarfile.open(path, "w") as tar:
            contents = {"config.json": json.dumps(config).encode(), "layer.tar": layer.getvalue(),
                        "manifest.json": json.dumps(manifest).encode()}  # fmt: skip
            for name, content in contents.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        return path

    def _make_objects(self) -> None:
        """A namespace, and volumes that both nodes see: a directory of this machine each."""
        objects: list[dict[str, object]] = [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "devgw"}},
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {
                    "name": _STORAGE_CLASS,
                    "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
                },
                "provisioner": "kubernetes.io/no-provisioner",
            },
        ]
        for number in range(_VOLUMES):
            directory = self.root / "volumes" / f"v{number}"
            directory.mkdir(parents=True)
            directory.chmod(0o777)
            objects.append(
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolume",
                    "metadata": {"name": f"v{number}"},
                    "spec": {
                        "capacity": {"storage": "100Gi"},
                        "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
                        "storageClassName": _STORAGE_CLASS,
                        "persistentVolumeReclaimPolicy": "Retain",
                        "hostPath": {"path": str(directory)},
                    },
                }
            )
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.kubectl("apply", "--validate=false", "-f", "-", text=text)
        wait_for(
            lambda: self._answers("-n", "devgw", "get", "serviceaccount", "default"), "the namespace's account", 180
        )

    def kubectl(self, *arguments: str, text: str = "") -> str:
        """Run kubectl as the cluster's administrator; return what it printed. Raises: RuntimeError, with its words."""
        command = [*self.enter(), "kubectl", f"--kubeconfig={self.admin}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, input=text)
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def _answers(self, *arguments: str) -> str:
        with suppress(RuntimeError, subprocess.TimeoutExpired):
            return self.kubectl(*arguments)
        return ""

    def end(self) -> None:
        """Kill all of it, by process, and remove what it kept."""
        for made in reversed(self._made):
            with suppress(OSError, subprocess.SubprocessError):
                made.end()
        for process in self._running.values():
            process.kill()
            process.wait(timeout=60)
        shutil.rmtree(self._memory, ignore_errors=True)
        _remove_empty_groups()
        shutil.rmtree(self.root, ignore_errors=True)


def _remove_empty_groups() -> None:
    """Remove the control groups of containers that are gone; one that is in use stays."""
    for group in (*_CGROUPS.glob("*/k8s.io"), *_CGROUPS.glob("*/kubepods*")):
        for directory, _below, _files in os.walk(group, topdown=False):
            with suppress(OSError):
                Path(directory).rmdir()
