"""Closes the network of one environment to all but what its egress names: the kernel's packet filter, by interface.

Of an environment on a bridge, packets are judged where they come in from that bridge, before the engine's own rules,
address translation and routing (the table `raw`). So no rule that is made later can open what is closed here, and
nobody can connect to the environment either: its answers are not let out. What is refused is dropped without an answer.
"""

import fcntl
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from gateway.engines import enter_namespaces
from gateway.errors import EngineError
from gateway.model import Egress
from policies.egress import EgressRule, EgressTarget
from policies.ports import ANY_PORT

NOT_PUBLIC = (
    "0.0.0.0/8",  # this host (RFC 1122)
    "10.0.0.0/8",  # private (RFC 1918); other environments too
    "100.64.0.0/10",  # shared by carriers (RFC 6598)
    "127.0.0.0/8",  # loopback
    "169.254.0.0/16",  # link-local: cloud metadata answers here
    "172.16.0.0/12",  # private; Docker's first choice
    "192.0.0.0/24",  # IETF protocols; some clouds' metadata
    "192.0.2.0/24",  # documentation (RFC 5737)
    "192.88.99.0/24",  # 6to4 relays, withdrawn
    "192.168.0.0/16",  # private
    "198.18.0.0/15",  # benchmarks
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and broadcast
    "168.63.129.16/32",  # Azure's metadata and health service stands at a public address
)
"""What `internet` does not hold (IANA's registry of special-purpose addresses: not globally reachable)."""

_CHAIN = re.compile(r"[A-Za-z0-9-]{1,28}")  # what iptables takes as the name of a chain
_NS_GET_USERNS = 0xB701  # ioctl_ns(2)
_WAIT = ("--wait", "10")
_NO_LOCK = {"XTABLES_LOCKFILE": "/dev/null"}
"""The lock of older iptables is the host's, which a user may not open; a sandbox's rules have one writer."""
_TIMEOUT_SECONDS = 30
_SBIN = "/usr/sbin:/sbin"

_log = logging.getLogger(__name__)


class PacketFilter(Protocol):
    """What an engine needs of the host's packet filter."""

    def confine(self, bridge: str, egress: Egress, *, is_made: bool = True) -> None:
        """Let only what `egress` names in from a bridge; safe to repeat. Raises: EngineError `egress.unenforceable`.

        A bridge that is not made yet is waited for by its name; who says so has called `require_own_network`.
        """

    def release(self, bridge: str) -> None:
        """Forget a bridge that is gone; one that was never confined changes nothing."""


class HostPacketFilter:
    """The packet filter of the host that the gateway runs on, through iptables. Needs the right to change it."""

    def confine(self, bridge: str, egress: Egress, *, is_made: bool = True) -> None:
        if is_made and not Path("/sys/class/net", bridge).exists():
            raise _elsewhere()
        hook = ("PREROUTING", "-i", bridge, "-j", bridge)
        _load("iptables", bridge, hook, ipv4_rules(egress.rule))
        if _has_ipv6():
            _load(
                "ip6tables", bridge, hook, ["-j DROP"]
            )  # the engine gives these networks no IPv6; nor may anyone else

    def release(self, bridge: str) -> None:
        for program in ("iptables", "ip6tables"):
            while _is_done(program, "-D", "PREROUTING", "-i", bridge, "-j", bridge):
                """Two creates at once may have made two."""
            _is_done(program, "-F", bridge)
            _is_done(program, "-X", bridge)


def _is_done(program: str, *change: str) -> bool:
    try:
        _run([_found(program), *_WAIT, "-t", "raw", *change])
    except EngineError as exc:
        _log.debug("there was nothing to remove: %s", exc.message)
        return False
    return True


def require_programs() -> None:
    """Find out early whether egress can be enforced at all. Raises: EngineError `egress.unenforceable`."""
    for program in ("iptables", "iptables-restore", *(("ip6tables", "ip6tables-restore") if _has_ipv6() else ())):
        _found(program)


def confine_namespace(namespace: int, interface: str, egress: Egress, resolver: str) -> None:
    """Do the same inside a network namespace, given as a descriptor, whose only way out is one interface.

    `resolver` answers DNS there. The addresses that the host has now are closed by name: from inside they look public.
    The gateway's own namespace is refused: a sandbox may have ended, and its process number be somebody else's.
    Raises: EngineError `egress.unenforceable`.
    """
    require_foreign(namespace)
    hook = ("OUTPUT", "-o", interface, "-j", "dgw-egress")
    ask = [f"-d {resolver} -p {protocol} --dport 53 -j RETURN" for protocol in ("udp", "tcp")]
    host = [f"-d {address} -j DROP" for address in host_addresses()]
    owner = fcntl.ioctl(namespace, _NS_GET_USERNS)
    try:
        enter, descriptors = _entry(owner, namespace), (owner, namespace)
        _load("iptables", "dgw-egress", hook, [*ask, *host, *ipv4_rules(egress.rule)], enter, descriptors)
        if _has_ipv6():
            _load("ip6tables", "dgw-egress", hook, ["-j DROP"], enter, descriptors)
    finally:
        os.close(owner)


def _entry(user: int, net: int) -> tuple[str, ...]:
    """Return the command that runs another in a network namespace with the right to change its filter.

    Root has that right anywhere. Another user has it in the user namespace of their own that holds the network.
    """
    if os.geteuid() == 0:
        return ("nsenter", f"--net=/proc/self/fd/{net}", "--")
    return (sys.executable, "-I", "-S", enter_namespaces.__file__, str(user), str(net))


def require_foreign(namespace: int) -> None:
    """Refuse the network that the gateway itself or the host is in, given as a descriptor like a sandbox's.

    Raises: EngineError `egress.unenforceable`.
    """
    given = os.fstat(namespace)
    for process in ("self", "1"):
        try:
            ours = Path("/proc", process, "ns/net").stat()
        except PermissionError:
            continue  # an ordinary user may not ask this of process 1, nor enter its network
        if os.path.samestat(given, ours):
            raise _unenforceable("this is the network of the host, not a sandbox's")


def require_own_network(daemon: int | None) -> None:
    """Find out that an engine will make its bridges in the gateway's own network, where rules are made.

    One of its threads is enough: the others may be at work in the network of a container just now.
    Raises: EngineError `egress.unenforceable`, where its daemon has another, or it cannot be told.
    """
    ours = Path("/proc/self/ns/net").stat()
    for thread in Path("/proc", str(daemon), "task").glob("*/ns/net"):
        with suppress(OSError):  # it has just ended
            if os.path.samestat(thread.stat(), ours):
                return
    raise _elsewhere()


def ipv4_rules(egress: EgressRule) -> list[str]:
    """Return the rules of an environment's chain, first match first.

    Raises:
        EngineError: `egress.unenforceable`, for a target of IPv6.
    """
    rules = ["-m addrtype ! --dst-type UNICAST -j DROP"]  # the host's own addresses, public ones too; broadcast
    for target in egress.targets:
        rules += _target_rules(target)
    if egress.mode == "internet":
        return [*rules, *(f"-d {network} -j DROP" for network in NOT_PUBLIC), "-j RETURN"]
    return [*rules, "-j DROP"]


def _target_rules(target: EgressTarget) -> Iterator[str]:
    if target.network.version != 4:
        raise _unenforceable(f"{target} is an IPv6 address, and environments have IPv4 only")
    if target.ports == ANY_PORT:
        yield f"-d {target.network} -j RETURN"
        return
    for first, last in target.ports.ranges:
        for protocol in ("tcp", "udp"):
            yield f"-d {target.network} -p {protocol} --dport {first}:{last} -j RETURN"


def _load(
    program: str,
    chain: str,
    hook: tuple[str, ...],
    rules: list[str],
    enter: tuple[str, ...] = (),
    descriptors: tuple[int, ...] = (),
) -> None:
    """Replace a chain in one step, then lead packets into it before any other rule sees them."""
    if _CHAIN.fullmatch(chain) is None:
        raise _unenforceable(f"{chain!r} cannot name a chain")
    lines = ["*raw", f":{chain} - [0:0]", *(f"-A {chain} {rule}" for rule in rules), "COMMIT", ""]
    _run([*enter, _found(f"{program}-restore"), "--noflush", *_WAIT], "\n".join(lines), descriptors)
    change = [*enter, _found(program), *_WAIT, "-t", "raw"]
    try:
        _run([*change, "-C", *hook], descriptors=descriptors)
    except EngineError:
        _run([*change, "-I", hook[0], "1", *hook[1:]], descriptors=descriptors)


def _has_ipv6() -> bool:
    return Path("/proc/net/if_inet6").exists()


def host_addresses() -> list[str]:
    """Return every IPv4 address the host has, from the kernel's routing trie."""
    found = re.findall(r"-- (\S+)\n\s+/32 host LOCAL", Path("/proc/net/fib_trie").read_text())
    return sorted(set(found))


def _found(program: str) -> str:
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_SBIN}")
    if path is None:
        raise _unenforceable(f"{program} is not installed")
    return path


def _run(command: list[str], text: str = "", descriptors: tuple[int, ...] = ()) -> None:
    try:
        done = subprocess.run(
            command,
            env=os.environ | _NO_LOCK if descriptors else None,
            input=text,
            pass_fds=descriptors,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise _unenforceable(f"{command[0]} does not run: {exc}") from exc
    if done.returncode != 0:
        raise _unenforceable(" ".join(f"{Path(command[0]).name}: {done.stderr}".split())[:300])


def _elsewhere() -> EngineError:
    return _unenforceable("the engine's networks are not on this host, so nothing here can close them")


def _unenforceable(why: str) -> EngineError:
    return EngineError(
        "egress.unenforceable",
        f"connections to the outside cannot be held to what is allowed: {why}",
        "the engine's host needs iptables, and with Docker the gateway must be root; or create with --egress none",
    )
