"""Several nodes of one run: how they meet (torchrun's c10d rendezvous), and which network interface they use."""

import fcntl
import socket
import struct
from dataclasses import dataclass

from devgw_runner.errors import UsageError

SIOCGIFADDR = 0x8915  # netdevice(7)
DEFAULT_PORT = 29400


@dataclass(frozen=True)
class Cluster:
    """What `--nodes`, `--rendezvous`, `--run-id` and `--restarts` say; alone, one node with no restarts."""

    nodes: str = "1"
    rendezvous: str = ""
    run_id: str = "devgw"
    restarts: int = 0

    @property
    def is_alone(self) -> bool:
        return self.nodes == "1"

    def arguments(self) -> list[str]:
        """Return torchrun's arguments."""
        if self.is_alone:
            return ["--standalone", f"--max-restarts={self.restarts}"]
        host, port = split_endpoint(self.rendezvous)
        meets_here = host in own_addresses().values()
        local = [f"--local-addr={self.local_address()}"]
        return [
            f"--nnodes={self.nodes}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={host}:{port}",
            f"--rdzv-id={self.run_id}",
            f"--rdzv-conf=is_host={int(meets_here)}",
            f"--max-restarts={self.restarts}",
            *local,
        ]

    def local_address(self) -> str:
        """Return the address of this node on the way to the rendezvous; no packet is sent to find it."""
        host, port = split_endpoint(self.rendezvous)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((host, port))
            except OSError as exc:
                raise UsageError(f"there is no way to the rendezvous {host}", "check --rendezvous HOST:PORT") from exc
            return str(probe.getsockname()[0])

    def environment(self) -> dict[str, str]:
        """Return the variables that bind gloo and NCCL to the interface towards the rendezvous.

        Where processes may start again, each start needs a store of its own: torch keeps one for all of them, and
        a process that comes first reads the address of one that is dead ("connection refused").
        """
        if self.is_alone and not self.restarts:
            return {}
        afresh = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        if self.is_alone:
            return afresh
        address = self.local_address()
        name = next((name for name, own in own_addresses().items() if own == address), "")
        return afresh | ({"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name} if name else {})


def check_cluster(cluster: Cluster) -> Cluster:
    """Refuse what cannot be.

    Raises:
        UsageError: a number makes no sense, or several nodes have no place to meet.
    """
    counts = cluster.nodes.split(":")
    if len(counts) > 2 or not all(count.isdigit() and int(count) > 0 for count in counts):
        raise UsageError(f"--nodes {cluster.nodes} makes no sense", "for example --nodes 2, or --nodes 1:4")
    if len(counts) == 2 and int(counts[0]) > int(counts[1]):
        raise UsageError(f"--nodes {cluster.nodes} makes no sense", "the smaller number comes first, as in 1:4")
    if not cluster.is_alone:
        if not cluster.rendezvous:
            raise UsageError("several nodes need a place to meet", "--rendezvous HOST:PORT, the same on every node")
        split_endpoint(cluster.rendezvous)
    return cluster


def split_endpoint(text: str) -> tuple[str, int]:
    """Return the address and the port of HOST[:PORT].

    Raises:
        UsageError: the host is not known, or the port no number.
    """
    name, _, port = text.partition(":")
    if port and not (port.isdigit() and 0 < int(port) < 65536):
        raise UsageError(f"--rendezvous {text} has no sensible port", "for example --rendezvous node0:29400")
    try:
        return socket.gethostbyname(name), int(port or DEFAULT_PORT)
    except OSError as exc:
        raise UsageError(f"the host of --rendezvous {text} is not known", "name a host or an address") from exc


def own_addresses() -> dict[str, str]:
    """Return this machine's IPv4 addresses by interface."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # an interface without an IPv4 address
                continue
            found[name] = socket.inet_ntoa(answer[20:24])
    return found
