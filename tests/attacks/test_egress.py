"""What an environment's own connections reach: tried for real, on each engine, against addresses that all answer."""

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.engines.docker.engine import DockerEngine
from gateway.engines.docker.names import bridge_name
from gateway.engines.packet_filter import HostPacketFilter, require_own_network
from gateway.errors import EngineError, UsageError
from gateway.model import Egress, EnvironmentRef
from tests.attacks.outside import CLOSED, LISTED, NEIGHBOUR, PORT, PUBLIC, outside
from tests.contract.bubblewrap_subject import bubblewrap_under_test
from tests.contract.conftest import parameters
from tests.contract.docker_subject import docker_under_test
from tests.contract.inside import Spool, wait_until
from tests.contract.subject import EngineUnderTest, started
from tests.contract.test_limits import own_address
from tests.support.engine_variables import engine_kind
from tests.support.processes import running

ALICE = EnvironmentRef.parse("alice")
ENGINES = {"docker": docker_under_test, "bubblewrap": bubblewrap_under_test}
if engine_kind() == "podman":
    ENGINES = {"podman": docker_under_test}

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module", autouse=True)
def world() -> Iterator[None]:
    """Addresses outside, each of which the host itself reaches: else a refusal would prove nothing."""
    with outside():
        for address in (PUBLIC, NEIGHBOUR, *CLOSED):
            with socket.create_connection((address, PORT), 5) as connection:
                assert connection.recv(4) == b"here"
        yield


@pytest.fixture(params=parameters(list(ENGINES)))
def real(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EngineUnderTest]:
    with ENGINES[request.param](tmp_path) as under_test:
        yield under_test


@pytest.fixture(params=parameters([name for name in ENGINES if name != "bubblewrap"]))
def bridged(tmp_path: Path) -> Iterator[EngineUnderTest]:
    """Return an engine whose environments are on bridges of the host."""
    with docker_under_test(tmp_path) as under_test:
        yield under_test


@contextmanager
def listening() -> Iterator[int]:
    """Listen on every address of the host, as a gateway or a database would; yield the port."""
    with socket.create_server(("0.0.0.0", 0), backlog=64) as listener:  # noqa: S104 - the attack is on such a service

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"here")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def reached(spool: Spool, places: list[tuple[str, int]]) -> set[str]:
    """Try to connect to each place from inside, all at once; return the addresses that answered."""
    tries = "".join(
        f"(nc -w 1 {address} {port} </dev/null 2>/dev/null | grep -q here && echo {address}) &\n"
        for address, port in places
    )
    return set(spool.run(f"{tries}wait").text.split())


def host_addresses() -> set[str]:
    """Return every IPv4 address of this host but loopback."""
    listed = subprocess.run(
        ["ip", "-4", "-o", "address"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    return {line.split()[3].partition("/")[0] for line in listed.splitlines()} - {"127.0.0.1"}


@pytest.mark.attack("C5", "egress `internet`: public addresses and nothing else")
def test_internet_means_public_addresses_only(real: EngineUnderTest) -> None:
    """Private, shared, link-local and documentation addresses, all of which the host reaches, are closed."""
    spool = started(real, egress=Egress.INTERNET)
    assert reached(spool, [(address, PORT) for address in (PUBLIC, *CLOSED)]) == {PUBLIC}


@pytest.mark.attack("C6", "egress to the host: any of its addresses, the gateway's port, the engine's bridge")
@pytest.mark.parametrize("egress", [Egress.INTERNET, Egress("198.51.100.0/24, 192.0.0.0/8, 10.0.0.0/8")])
def test_no_address_of_the_host_is_reached(real: EngineUnderTest, egress: Egress) -> None:
    """Not even where a list names the host's network: the host is never outside."""
    spool = started(real, egress=egress)
    with listening() as port:
        addresses = host_addresses()
        assert len(addresses) >= 2
        assert reached(spool, [(address, port) for address in sorted(addresses)]) == set()


@pytest.mark.attack("C7", "egress to another environment, and from the host into one")
def test_another_environment_and_the_host_do_not_reach_in(bridged: EngineUnderTest) -> None:
    """Each listens on its own address and reaches itself; nobody else does."""
    spools = {name: started(bridged, name, egress=Egress.INTERNET) for name in ("alice", "bob")}
    addresses = {name: own_address(spool) for name, spool in spools.items()}
    for name, spool in spools.items():
        spool.run(f"nc -ll -p {PORT} -e /bin/echo here </dev/null >/dev/null 2>&1 &")
        wait_until(lambda s=spool, a=addresses[name]: bool(reached(s, [(a, PORT)])), "its own listener is up")
    assert reached(spools["bob"], [(addresses["alice"], PORT)]) == set()
    assert reached(spools["alice"], [(addresses["bob"], PORT)]) == set()
    with pytest.raises(OSError, match="timed out"):
        socket.create_connection((addresses["alice"], PORT), 2)


@pytest.mark.attack("C8", "egress list: the addresses and ports named, and no other")
def test_a_list_opens_what_it_names(real: EngineUnderTest) -> None:
    """The port beside it, its neighbour and the rest of the world stay closed."""
    spool = started(real, egress=Egress(f"{LISTED}:{PORT}"))
    assert reached(spool, [(address, PORT) for address in (LISTED, NEIGHBOUR, PUBLIC)]) == {LISTED}
    other = started(real, "bob", egress=Egress(f"{LISTED}:{PORT + 1}-65535, {NEIGHBOUR}"))
    assert reached(other, [(address, PORT) for address in (LISTED, NEIGHBOUR, PUBLIC)]) == {NEIGHBOUR}


@pytest.mark.attack("C9", "egress `none`: no interface but loopback")
def test_none_reaches_nothing(real: EngineUnderTest) -> None:
    """Whatever answers outside, there is no way to it."""
    assert reached(started(real), [(address, PORT) for address in (PUBLIC, *CLOSED)]) == set()


def test_the_filter_is_there_again_after_it_was_flushed_and_the_environment_restarted(
    bridged: EngineUnderTest,
) -> None:
    """A firewall that was reset while the environment was stopped opens nothing."""
    spool = started(bridged, egress=Egress.INTERNET)
    bridged.engine.stop(ALICE, 5)
    HostPacketFilter().release(bridge_of(bridged))
    bridged.engine.start(ALICE)
    assert reached(spool, [(PUBLIC, PORT), (LISTED, PORT)]) == {PUBLIC}


def test_delete_leaves_no_rule_behind(bridged: EngineUnderTest) -> None:
    """Chain and jump go with the environment."""
    started(bridged, egress=Egress.INTERNET)
    bridge = bridge_of(bridged)
    assert bridge in rules()
    bridged.engine.delete(ALICE)
    assert bridge not in rules()


@pytest.mark.parametrize("engine", parameters(list(ENGINES)))
def test_without_the_right_or_the_tool_egress_is_refused(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never silently open: nothing is made, and the hint says what to do."""
    with ENGINES[engine](tmp_path) as under_test:
        monkeypatch.setattr("gateway.engines.packet_filter._SBIN", "")
        monkeypatch.setenv("PATH", "/usr/bin:/bin")  # iptables lies in /usr/sbin
        with pytest.raises(EngineError) as refusal:
            under_test.engine.create(under_test.spec(egress=Egress.INTERNET))
        assert refusal.value.code == "egress.unenforceable"
        assert "iptables" in refusal.value.hint
        assert under_test.engine.observe(ALICE) is None


def test_an_engine_elsewhere_gets_no_egress(tmp_path: Path) -> None:
    """Its bridges are not on this host: rules here would filter nothing."""
    with pytest.raises(EngineError) as refusal:
        HostPacketFilter().confine("dgw-of-elsewhere", Egress.INTERNET)
    assert refusal.value.code == "egress.unenforceable"


def test_an_engine_in_another_network_gets_no_egress() -> None:
    """Podman makes a bridge only with the start: that it will be made here is asked of its service's network."""
    require_own_network(os.getpid())
    with running(
        ["unshare", "--net", "sh", "-c", "echo ready; read _"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as elsewhere:
        assert elsewhere.stdout is not None
        assert elsewhere.stdout.readline() == b"ready\n"
        for daemon in (elsewhere.pid, None):
            with pytest.raises(EngineError) as refusal:
                require_own_network(daemon)
            assert refusal.value.code == "egress.unenforceable"


@pytest.mark.parametrize(
    "text", ["everything", "", "169.254.169.254", "127.0.0.1:22", "0.0.0.0/0", "203.0.113.7 -j ACCEPT"]
)
def test_what_is_no_egress_is_refused(text: str) -> None:
    """Nothing else reaches a packet filter's command line."""
    with pytest.raises(UsageError):
        Egress(text)


def bridge_of(subject: EngineUnderTest) -> str:
    assert isinstance(subject.engine, DockerEngine)
    return bridge_name(subject.engine.gateway_id, ALICE)


def rules() -> str:
    listed = [
        subprocess.run([f"{program}-save", "-t", "raw"], capture_output=True, text=True, check=True, timeout=60)
        for program in ("iptables", "ip6tables")
    ]
    return "".join(done.stdout for done in listed)
