"""One bwrap process as its supervisor holds it: started, connected, asked to end, killed."""

import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.engines.bubblewrap import cgroups, network
from gateway.engines.bubblewrap.arguments import arguments
from gateway.engines.bubblewrap.errors import failed, no_namespaces
from gateway.engines.bubblewrap.order import Order
from gateway.engines.bubblewrap.process import Process
from gateway.engines.bubblewrap.seccomp import filter_program

NAMESPACES_HINT = (
    "unprivileged user namespaces must be allowed: see 'sysctl user.max_user_namespaces', "
    "kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns"
)
_UP_SECONDS = 20.0
_POLL_SECONDS = 0.005
_OWN_WORDS = b"bwrap: "
_NAMESPACE_WORDS = ("namespace", "uid map", "Can't mount proc", "Operation not permitted", "RTM_NEWADDR")
_SACRIFICED_FIRST = "500"  # oom_score_adj: the host's own services outlive an environment
_ULIMITS = (  # pinned memory for CUDA, NVIDIA's stack convention, many DataLoader workers: as on Docker
    (resource.RLIMIT_MEMLOCK, resource.RLIM_INFINITY, resource.RLIM_INFINITY),
    (resource.RLIMIT_STACK, 64 * 2**20, 64 * 2**20),
    (resource.RLIMIT_NOFILE, 65_536, 1_048_576),
    (resource.RLIMIT_CORE, 0, 0),
)


@dataclass
class Bwrap:
    """`output` is the reading end of what the entrypoint writes, `first` the host's pid of process 1 inside."""

    process: "subprocess.Popen[bytes]"
    output: int
    first: int = 0
    stack: "subprocess.Popen[bytes] | None" = None

    def entrypoint(self) -> int | None:
        """Return the host's pid of the entrypoint, which is 2 inside."""
        for child in _read(f"/proc/{self.first}/task/{self.first}/children").split():
            status = dict(line.partition(":")[::2] for line in _read(f"/proc/{child}/status").splitlines())
            if status.get("NSpid", "").split()[-1:] == ["2"]:
                return int(child)
        return None

    def ask_to_end(self) -> None:
        """SIGTERM to the entrypoint alone, which knows what to do with its children."""
        if (pid := self.entrypoint()) is not None and (found := Process.of(pid)) is not None:
            found.send(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to process 1: the kernel takes everything in its pid namespace with it."""
        if self.first and (found := Process.of(self.first)) is not None:
            found.send(signal.SIGKILL)

    def exit_code(self) -> int:
        """Wait for its end and return the entrypoint's exit code, 128 and the signal where one ended it."""
        code = self.process.wait()
        if self.stack is not None:
            self.stack.terminate()
            self.stack.wait()
        return 128 - code if code < 0 else code

    def wait_until_up(self) -> bytes:
        """Wait until the entrypoint has taken bwrap's place; return what was written meanwhile.

        Raises:
            EngineError: bwrap's own complaint.
        """
        deadline = time.monotonic() + _UP_SECONDS
        while not self._has_entrypoint():
            if self.process.poll() is not None:
                words = os.read(self.output, 65_536)
                if words.startswith(_OWN_WORDS):
                    raise complaint(words)
                return words  # it ran, and was quick
            if time.monotonic() > deadline:
                raise failed("start the sandbox", f"bwrap set nothing up within {_UP_SECONDS:.0f} s")
            time.sleep(_POLL_SECONDS)
        return b""

    def _has_entrypoint(self) -> bool:
        pid = self.entrypoint()
        return pid is not None and _read(f"/proc/{pid}/comm").strip() not in {"", "bwrap"}


def spawn(order: Order, staged: dict[str, str]) -> Bwrap:
    """Start bwrap as the environment's user and connect its network; it waits with the rest until that is done.

    Raises:
        EngineError: bwrap's own complaint, or the network's.
    """
    output, log = os.pipe()
    status, status_write = os.pipe()
    hold_read, hold = os.pipe()
    options = _in_memory(b"".join(word.encode() + b"\0" for word in arguments(order.sandbox, staged)))
    program = _in_memory(filter_program())
    theirs = [status_write, hold_read, program, options]
    argv = [
        order.bwrap, "--json-status-fd", str(status_write), "--block-fd", str(hold_read), "--seccomp", str(program),
        "--args", str(options), "--", *order.sandbox.command,
    ]  # fmt: skip
    process = subprocess.Popen(
        argv,
        env=order.sandbox.variables,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=theirs,
        preexec_fn=_becoming(order),  # noqa: PLW1509 - this process has one thread
        cwd="/",
    )
    for descriptor in theirs:
        os.close(descriptor)
    bwrap = Bwrap(process, output)
    try:
        bwrap.first = _first_pid(bwrap, status, log)
        if order.stack is not None:
            bwrap.stack = network.start(order.stack, bwrap.first, log, ids=order.ids)
        os.write(hold, b"go")
    except BaseException:
        process.kill()
        raise
    finally:
        os.close(log)
        os.close(hold)
    return bwrap


def complaint(words: bytes) -> "Exception":
    """Turn bwrap's last words into an error: a host without namespaces, or anything else."""
    text = words.decode(errors="replace").removeprefix(_OWN_WORDS.decode())
    if any(word in text for word in _NAMESPACE_WORDS):
        return no_namespaces(text, NAMESPACES_HINT)
    return failed("start the sandbox", text)


def _becoming(order: Order) -> Callable[[], None]:
    """Return what the child does before it is bwrap: take on the limits, then the environment's identity."""

    def become() -> None:
        cgroups.join(order.made_groups)
        Path("/proc/self/oom_score_adj").write_text(_SACRIFICED_FIRST)
        for limit, soft, hard in _ULIMITS:
            _, ceiling = resource.getrlimit(limit)
            resource.setrlimit(limit, (_lowered(soft, ceiling), _lowered(hard, ceiling)))
        if order.ids is not None:
            os.setgroups([])
            os.setgid(order.ids[1])
            os.setuid(order.ids[0])

    return become


def _lowered(wanted: int, ceiling: int) -> int:
    """Return a limit that this process may set: root may lack CAP_SYS_RESOURCE in a container of its own."""
    if ceiling == resource.RLIM_INFINITY:
        return wanted
    return ceiling if wanted == resource.RLIM_INFINITY else min(wanted, ceiling)


def _first_pid(bwrap: Bwrap, status: int, log: int) -> int:
    with os.fdopen(status) as lines:
        line = lines.readline()
    if line:
        return int(json.loads(line)["child-pid"])
    os.write(log, b"\n")  # so that the read below ends even when bwrap wrote nothing
    bwrap.process.wait()
    raise complaint(os.read(bwrap.output, 65_536))


def _in_memory(content: bytes) -> int:
    descriptor = os.memfd_create("devgw")
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
