"""One bwrap process as its supervisor holds it: started, connected, asked to end, killed."""

import json
import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from gateway.engines.bubblewrap import cgroups, network
from gateway.engines.bubblewrap.arguments import arguments
from gateway.engines.bubblewrap.errors import failed, no_namespaces
from gateway.engines.bubblewrap.order import Order
from gateway.engines.bubblewrap.process import Process
from gateway.engines.bubblewrap.seccomp import filter_program
from gateway.errors import EngineError

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
    """`output` is the reading end of what the entrypoint writes, `first` the host's pid of process 1 inside.

    `status` is what bwrap tells of itself, and stays open as long as it may write there; `first_words` is what was read
    of the output before there was a log.
    """

    process: "subprocess.Popen[bytes]"
    output: int
    status: TextIO
    first: int = 0
    first_words: bytes = b""
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

    def wait_until_up(self) -> None:
        """Wait until the entrypoint has taken bwrap's place.

        Raises:
            EngineError: bwrap's own complaint.
        """
        deadline = time.monotonic() + _UP_SECONDS
        while not self._has_entrypoint():
            if self.process.poll() is not None:
                if problem := self.complaint():
                    raise problem
                return  # it ran, and was quick
            if time.monotonic() > deadline:
                raise failed("start the sandbox", f"bwrap set nothing up within {_UP_SECONDS:.0f} s")
            time.sleep(_POLL_SECONDS)

    def complaint(self) -> EngineError | None:
        """Return bwrap's own last words as an error, once it has ended; None when it had nothing to complain of."""
        if self.process.wait() == 0:
            return None
        if select.select([self.output], [], [], 0)[0]:
            self.first_words = os.read(self.output, 65_536)
        if not self.first_words.startswith(_OWN_WORDS):
            return None
        text = self.first_words.decode(errors="replace").removeprefix(_OWN_WORDS.decode())
        if any(word in text for word in _NAMESPACE_WORDS):
            return no_namespaces(text, NAMESPACES_HINT)
        return failed("start the sandbox", text)

    def _has_entrypoint(self) -> bool:
        pid = self.entrypoint()
        return pid is not None and _read(f"/proc/{pid}/comm").strip() not in {"", "bwrap"}


def spawn(order: Order, staged: dict[str, str], note_first: Callable[[Process], None]) -> Bwrap:
    """Start bwrap as the environment's user and connect its network; it waits with the rest until that is done.

    `note_first` is told of the process that is 1 inside, before anything of the environment's own runs.

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
    bwrap = Bwrap(process, output, os.fdopen(status))
    try:
        bwrap.first = _first_pid(bwrap)
        if (first := Process.of(bwrap.first)) is not None:
            note_first(first)
        if order.stack is not None:
            bwrap.stack = network.start(order.stack, bwrap.first, ids=order.ids)
        os.write(hold, b"go")
    except (OSError, EngineError) as exc:
        bwrap.kill()  # before the descriptor it waits on is closed, which would let it go on without its parent
        process.kill()
        raise bwrap.complaint() or exc from exc
    finally:
        os.close(log)
        os.close(hold)
    return bwrap


def _becoming(order: Order) -> Callable[[], None]:
    """Return what the child does before it is bwrap: take on the limits, then the environment's identity."""

    def become() -> None:
        cgroups.join(order.made_groups)
        Path("/proc/self/oom_score_adj").write_text(_SACRIFICED_FIRST)
        for limit, soft, hard in _ULIMITS:
            _, ceiling = resource.getrlimit(limit)
            resource.setrlimit(limit, (_lowered(soft, ceiling), _lowered(hard, ceiling)))
        if order.ids is not None:
            os.setgroups(order.groups)
            os.setgid(order.ids[1])
            os.setuid(order.ids[0])

    return become


def _lowered(wanted: int, ceiling: int) -> int:
    """Return a limit that this process may set: root may lack CAP_SYS_RESOURCE in a container of its own."""
    if ceiling == resource.RLIM_INFINITY:
        return wanted
    return ceiling if wanted == resource.RLIM_INFINITY else min(wanted, ceiling)


def _first_pid(bwrap: Bwrap) -> int:
    if line := bwrap.status.readline():
        return int(json.loads(line)["child-pid"])
    raise bwrap.complaint() or failed("start the sandbox", "bwrap said nothing")


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
