"""What is looked at inside a pod before anybody gets in: which GPUs it was given, and whether its network is closed."""

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.engines.kubernetes.names import GPUS
from gateway.engines.kubernetes.streams.by_exec import PYTHON, Output
from gateway.errors import EngineError
from gateway.model import Egress, GpuUuid

_UUID = re.compile(r"(?:GPU|MIG)-[0-9A-Za-z/-]{6,80}")
_PROGRAM = """
import json, os, shutil, socket, subprocess, sys, threading
visible = os.environ.get("NVIDIA_VISIBLE_DEVICES", "")
if "GPU-" not in visible and "MIG-" not in visible and shutil.which("nvidia-smi"):
    try:
        visible = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=8).stdout
    except Exception:
        pass
targets = set(sys.argv[1:])
host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
if host and port:
    targets.add(host + " " + port)
reached = []
def reach(target):
    host, port = target.split()
    try:
        socket.create_connection((host, int(port)), timeout=1.5).close()
        reached.append(target)
    except OSError:  # a refusal too: some network plugins close by refusing
        pass
threads = [threading.Thread(target=reach, args=(target,)) for target in targets]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps({"visible": visible, "reached": reached}))
"""


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found inside: UUIDs of GPUs, and addresses of the cluster that answered although nothing should."""

    gpus: tuple[GpuUuid, ...]
    reached: tuple[str, ...]


def command_for(address: str) -> list[str]:
    """Return the command, which tries the API server too; its URL is what the gateway itself connects to."""
    parts = urlsplit(address)
    try:
        ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        return [*PYTHON, _PROGRAM]
    return [*PYTHON, _PROGRAM, f"{parts.hostname} {parts.port or 443}"]


def read(output: Output) -> Examined:
    """Read what the command wrote. Raises: EngineError `engine.failed`."""
    try:
        found = json.loads(output.out)
        visible, reached = str(found["visible"]), [str(one) for one in found["reached"]]
    except (ValueError, KeyError, TypeError) as exc:
        said = " ".join(output.error.decode(errors="replace").split())[:200]
        raise EngineError(
            "engine.failed",
            f"the environment could not be examined from inside: {said or 'the stream ended early'}",
            "the image needs python3 on its PATH",
        ) from exc
    gpus = dict.fromkeys(GpuUuid(uuid) for uuid in _UUID.findall(visible))
    return Examined(tuple(gpus), tuple(reached))


def require_gpus(examined: Examined, count: int) -> tuple[GpuUuid, ...]:
    """Return the GPUs, as many as were asked for. Raises: EngineError `gpu.injection`."""
    slices = tuple(uuid for uuid in examined.gpus if uuid.startswith("MIG-"))
    gpus = slices or examined.gpus  # nvidia-smi lists a slice below the GPU that it is of
    if len(gpus) != count:
        raise EngineError(
            "gpu.injection",
            f"{count} GPUs were asked for, and inside the pod there are {len(gpus)}",
            "the device plugin must name them by UUID (deviceIDStrategy=uuid, deviceListStrategy=envvar)",
        )
    return gpus


def require_closed_network(examined: Examined, egress: Egress, *, is_accepted: bool) -> None:
    """Refuse a cluster whose network plugin lets a pod reach what no rule opens.

    Raises:
        EngineError: `egress.unenforceable`.
    """
    open_ones = [target for target in examined.reached if not _is_named(target, egress)]
    if open_ones and not is_accepted:
        raise EngineError(
            "egress.unenforceable",
            f"the cluster does not enforce NetworkPolicy: {open_ones[0].replace(' ', ':')} can be reached from inside",
            "use a network plugin that does (Calico, Cilium), or set kubernetes.accept_unenforced_network",
        )


def _is_named(target: str, egress: Egress) -> bool:
    address = ipaddress.ip_address(target.split(maxsplit=1)[0])
    return any(address in one.network for one in egress.rule.targets)


def annotation_of(gpus: tuple[GpuUuid, ...]) -> Mapping[str, object]:
    """Return the change of a pod that says what was found."""
    return {"metadata": {"annotations": {GPUS: ",".join(gpus)}}}
