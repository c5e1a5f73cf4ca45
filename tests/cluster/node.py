"""One node: containerd, a kubelet and a device plugin with two made-up GPUs, in namespaces of its own."""

import json
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.namespaces import Namespaces
from tests.cluster.programs import plugin_python, program

PAUSE_IMAGE = "devgw.test/pause:1"
_SOCKET = "/run/containerd/containerd.sock"
_KINDS = ("net", "mount", "uts", "pid")
_KUBELET = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "authorization": {"mode": "AlwaysAllow"},
    "cgroupDriver": "cgroupfs",
    "cgroupsPerQOS": False,
    "enforceNodeAllocatable": [],
    "failSwapOn": False,
    "resolvConf": "",
    "nodeStatusUpdateFrequency": "2s",
    "imageGCHighThresholdPercent": 100,
    "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
    "volumeStatsAggPeriod": "10s",
}
_CONTAINERD = """
version = 2
root = "{root}/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{root}/cni"
"""
_NETWORK = {
    "cniVersion": "0.4.0",
    "name": "pods",
    "plugins": [{"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True}],
}


@dataclass
class Node:
    """A node: `number` gives its address and that of its pods."""

    number: int
    root: Path
    kubeconfig: Path
    client_ca: Path
    gpus: tuple[str, ...]
    _running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"n{self.number}"

    @property
    def address(self) -> str:
        return f"10.93.0.{10 + self.number}"

    @property
    def pods(self) -> str:
        return f"10.244.{self.number}.0/24"

    def make(self) -> None:
        """Make its directories and namespaces."""
        for directory in ("kubelet", "containerd", "cni", "plugins"):
            (self.root / directory).mkdir(parents=True)
        Path("/var/lib/kubelet").mkdir(exist_ok=True)
        setup = (
            f"mount --make-rshared /; hostname {self.name}; mount -t proc proc /proc; "
            f"mount --bind {self.root}/kubelet /var/lib/kubelet; "
            "mkdir -p /run/containerd; mount -t tmpfs tmpfs /run/containerd; "
            "mkdir -p /run/netns /var/lib/cni; mount -t tmpfs tmpfs /run/netns; mount --make-shared /run/netns; "
            "mount -t tmpfs tmpfs /var/lib/cni; "
            "mount -t tmpfs tmpfs /var/log"  # two kubelets of one machine would remove each other's logs of pods
        )
        kinds = ("--net", "--mount", "--uts", "--pid", "--fork", "--kill-child=KILL", "--propagation", "private")
        self.namespaces = Namespaces(*kinds, setup=setup)
        network = json.loads(json.dumps(_NETWORK))
        network["plugins"][0]["ipam"] = {
            "type": "host-local",
            "ranges": [[{"subnet": self.pods}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": "/run/containerd/cni-addresses",
        }
        (self.root / "cni/10-pods.conflist").write_text(json.dumps(network))
        (self.root / "containerd.toml").write_text(_CONTAINERD.format(root=self.root, pause=PAUSE_IMAGE))
        settings = _KUBELET | {
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(self.client_ca)},
            }
        }
        (self.root / "kubelet.json").write_text(json.dumps(settings))

    def connect(self, others: "list[Node]") -> None:
        """Give it its address on `eth0`, which the switch has put in, and ways to the pods of the others."""
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "addr", "add", f"{self.address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        self.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.run("ip", "route", "add", "default", "via", "10.93.0.1")
        for other in others:
            if other is not self:
                self.run("ip", "route", "add", other.pods, "via", other.address)

    def run(self, *command: str, seconds: float = 120, kinds: tuple[str, ...] = _KINDS) -> str:
        """Run a command to its end on the node; return what it printed."""
        done = subprocess.run(
            [*self.namespaces.enter(*kinds), *command], capture_output=True, text=True, timeout=seconds, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def start_containerd(self) -> None:
        self._start("containerd", ["/usr/bin/containerd", "--config", f"{self.root}/containerd.toml"])

    def has_containerd(self) -> bool:
        """Say whether containerd answers."""
        with suppress(RuntimeError):
            self.run("ctr", "-a", _SOCKET, "version")
            return True
        return False

    def start_kubelet(self) -> None:
        self._start(
            "kubelet",
            [
                program("kubelet"),
                f"--kubeconfig={self.kubeconfig}",
                f"--config={self.root}/kubelet.json",
                "--container-runtime=remote",
                "--container-runtime-endpoint=unix:///run/containerd/containerd.sock",
                "--root-dir=/var/lib/kubelet",
                f"--hostname-override={self.name}",
                f"--node-ip={self.address}",
                "--node-labels=nvidia.com/gpu.product=NVIDIA-H200",
                f"--pod-infra-container-image={PAUSE_IMAGE}",
            ],
        )

    def start_plugin(self) -> None:
        plugin = Path(__file__).with_name("device_plugin.py")
        command = ["/var/lib/kubelet/device-plugins", *self.gpus]
        self._start("plugin", [plugin_python(), str(plugin), *command], directory=plugin.parent)

    def _start(self, name: str, command: list[str], directory: Path | None = None) -> None:
        log = (self.root / f"{name}.log").open("ab")
        entered = [*self.namespaces.enter(*_KINDS), *command]
        self._running[name] = subprocess.Popen(
            entered, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory, start_new_session=True
        )
        log.close()

    def programs(self) -> dict[str, dict[str, object]]:
        """Return what runs on it, by name."""
        return {name: program_of(process, self.root / f"{name}.log") for name, process in self._running.items()}

    def import_image(self, archive: Path) -> None:
        """Have containerd know the images of a docker or OCI archive."""
        self.run("ctr", "-a", _SOCKET, "-n", "k8s.io", "images", "import", "--all-platforms", str(archive), seconds=600)

    def end(self) -> None:
        """Kill everything on it."""
        self.namespaces.end()
        for process in self._running.values():
            process.wait(timeout=60)


def program_of(process: "subprocess.Popen[bytes]", log: Path) -> dict[str, object]:
    """Return what it takes to kill a program and to start it again."""
    return {"pid": process.pid, "command": list(map(str, process.args)), "log": str(log)}  # type: ignore[arg-type]
