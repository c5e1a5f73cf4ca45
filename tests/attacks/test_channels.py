"""Rows C and D: what somebody who is logged in asks for and must not get; bob works on meanwhile."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from gateway.audit.record import Record
from gateway.config import SshSettings
from tests.attacks.intruder import intrude, key_pair, signed
from tests.attacks.second_user import SecondUser
from tests.fuzz.gateway_under_fire import GatewayUnderFire
from tests.support.host_resources import free_port
from tests.support.ssh_clients import poll, tunnel
from tests.support.ssh_gateway import TestGateway, allow_all

Connection = asyncssh.SSHClientConnection
GROWTH_MAX_BYTES = 12 << 20


async def login(port: int, key: Path, user: str = "alice") -> Connection:
    connection, _ = await intrude(port, [signed(user, key_pair(key))])
    assert connection is not None
    return connection


def as_alice(gateway: GatewayUnderFire, work: Callable[[Connection], Awaitable[Any]]) -> Any:
    """Do something on a connection of alice's; afterwards the connection still works."""

    async def go() -> Any:
        async with await login(gateway.port, gateway.key("alice")) as connection:
            result = await asyncio.wait_for(work(connection), 30)
            assert (await connection.run("echo on")).stdout == "on\n"
            return result

    return asyncio.run(go())


def records(gateway: GatewayUnderFire, code: str, since: int, count: int) -> list[Record]:
    """Return the records of a code after the first so many, once there are so many more."""
    found = poll(lambda: got if len(got := gateway.records(code)[since:]) >= count else [], f"{count} of {code}")
    assert len(found) == count
    assert {record.actor["name"] for record in found} == {"alice"}
    return found


async def reason_of(opening: Awaitable[Any]) -> tuple[int, str]:
    with pytest.raises(asyncssh.ChannelOpenError) as caught:
        await opening
    return caught.value.code, caught.value.reason


class Quiet(asyncssh.SSHTCPSession[bytes]):
    """A forward that nothing is done with."""


SPELLINGS = [
    # the gateway's loopback by other names
    *("0.0.0.0", "0", "127.1", "127.0.1", "0x7f000001", "0x7f.1", "2130706433", "0177.0.0.1", "127.0.0.01"),  # noqa: S104 - asked for, not bound
    *("127.0.0.1.", "localhost.", "localhost.localdomain", "ip6-localhost", "::", "0:0:0:0:0:0:0:1", "::0001"),
    *("::ffff:127.0.0.1", "::ffff:7f00:1", "::127.0.0.1", "[::1]", "::1%lo", "127.0.0.2", "localhost%00"),
    *(" localhost", "localhost ", "localhost\n", "localhost\0", "localhost\0.example", "loc\u0430lhost"),
    # metadata services, links, the engine's bridge
    *("169.254.169.254", "169.254.170.2", "fd00:ec2::254", "[fd00:ec2::254]", "fe80::1%eth0", "0xa9fea9fe"),
    *("2852039166", "metadata.google.internal", "172.17.0.1", "host.docker.internal"),
    # what is no host at all
    *("", "-oProxyCommand=x", "/var/run/docker.sock", "../localhost", "*", "a" * 256, "\x1b[2J", "x" * 30_000),
]


@pytest.mark.attack("C10", "other spellings of the loopback and of metadata services, what is no host, 30 kB of host")
def test_other_spellings_of_an_address_are_refused(attacked: GatewayUnderFire) -> None:
    """Three names mean the environment; everything else is denied, journaled and answered with the reference."""
    before = len(attacked.records("forward.denied"))

    async def knock(connection: Connection) -> list[tuple[int, str]]:
        return [await reason_of(connection.create_connection(Quiet, host, 8888)) for host in SPELLINGS]

    answers = as_alice(attacked, knock)
    assert {code for code, _ in answers} == {asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED}
    denied = records(attacked, "forward.denied", before, len(SPELLINGS))
    assert all(record.reference in reason for record, (_, reason) in zip(denied, answers, strict=True))


@pytest.mark.attack("C11", "port 0, 65536, 2^32-1, and a port that becomes 8888 when cut to sixteen bits")
def test_impossible_ports_are_refused(attacked: GatewayUnderFire) -> None:
    """No number is cut down to sixteen bits on its way."""
    before = len(attacked.records("forward.denied"))
    places = [("localhost", port) for port in (0, 65536, 65536 + 8888, 2**31, 2**32 - 1)]

    async def knock(connection: Connection) -> list[tuple[int, str]]:
        return [await reason_of(connection.create_connection(Quiet, host, port)) for host, port in places]

    assert {code for code, _ in as_alice(attacked, knock)} == {asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED}
    records(attacked, "forward.denied", before, len(places))


@pytest.mark.attack("C13", "ten thousand channels opened on one connection and never read")
def test_ten_thousand_channels_stay_within_their_limit(attacked: GatewayUnderFire) -> None:
    """As many as a connection may have are opened, the others refused; memory stays, and so does the connection."""
    before = attacked.resident_bytes()
    held: list[Any] = []

    async def knock(connection: Connection) -> int | None:
        try:
            channel, _ = await connection.create_connection(Quiet, "localhost", 8888)
        except asyncssh.ChannelOpenError as error:
            return error.code
        held.append(channel)
        return None

    async def flood(connection: Connection) -> list[int | None]:
        codes = []
        for _ in range(100):
            codes += await asyncio.gather(*(knock(connection) for _ in range(100)))
        assert attacked.resident_bytes() - before < GROWTH_MAX_BYTES
        for channel in held:
            channel.close()
            await channel.wait_closed()
        return codes

    codes = as_alice(attacked, flood)
    assert codes.count(None) == SshSettings().max_channels
    assert codes.count(asyncssh.OPEN_RESOURCE_SHORTAGE) == len(codes) - SshSettings().max_channels


@pytest.mark.attack("C3", "Unix sockets: the engine's, the gateway's, relative, abstract, with NUL, too long")
def test_unix_sockets_outside_the_policy_are_refused(attacked: GatewayUnderFire) -> None:
    """To connect and to listen; nothing appears on the gateway."""
    paths = [
        "/var/run/docker.sock",
        "/run/docker.sock",
        "/var/lib/devgw/devgw.sqlite",
        "docker.sock",
        "../docker.sock",
        "",
    ]
    paths += ["\0docker", "/tmp\0/x", "/" + "a" * 200, "/tmp-not/x"]
    denied, refused = len(attacked.records("streamlocal.denied")), len(attacked.records("forward.denied"))

    async def knock(connection: Connection) -> list[tuple[int, str]]:
        return [await reason_of(connection.create_unix_connection(Quiet, path)) for path in paths]

    assert {code for code, _ in as_alice(attacked, knock)} == {asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED}
    impossible = [path for path in paths if "\0" in path or len(path) > 107]
    records(attacked, "forward.denied", refused, len(impossible))
    records(attacked, "streamlocal.denied", denied, len(paths) - len(impossible))


@pytest.mark.attack("C4", "`-R` on any address, port 0, a port that is none, a Unix socket, a path that is none")
def test_every_kind_of_reverse_forward_is_refused(attacked: GatewayUnderFire) -> None:
    """Each is journaled: the possible ones by the policy's rule, the impossible ones by the gateway's own."""
    codes = ("reverse-forward.denied", "streamlocal.denied", "channel.refused")
    before = [len(attacked.records(code)) for code in codes]
    port = free_port()
    places = [("0.0.0.0", port), ("", port), ("*", 0), ("localhost", 22), ("::", port), ("x\0y", port)]  # noqa: S104 - as above
    places += [("localhost", 65536), ("localhost", 2**32 - 1), ("h" * 300, port)]

    async def listen(connection: Connection) -> None:
        for host, number in places:
            with pytest.raises(asyncssh.ChannelListenError):
                await connection.create_server(lambda *_: True, host, number)
        for path in ("/run/x.sock", "/tmp\0/x"):
            with pytest.raises(asyncssh.ChannelListenError):
                await connection.create_unix_server(lambda *_: True, path)

    as_alice(attacked, listen)
    counts = (5, 1, 5)
    for code, since, count in zip(codes, before, counts, strict=True):
        records(attacked, code, since, count)


@pytest.mark.attack("C13", "tunnel devices, tun and tap, and X11")
def test_tunnel_devices_and_x11_are_refused(attacked: GatewayUnderFire) -> None:
    """No policy can allow them; the journal says who asked."""
    before = len(attacked.records("channel.refused"))

    async def ask(connection: Connection) -> None:
        await reason_of(connection.create_tun(Quiet))  # type: ignore[arg-type]  # never opened
        await reason_of(connection.create_tap(Quiet, 3))  # type: ignore[arg-type]
        channel, _ = await connection.create_session(asyncssh.SSHClientSession[str])
        request = b"\0" + b"\0\0\0\x12MIT-MAGIC-COOKIE-1" + b"\0\0\0\x0200" + bytes(4)
        assert not await channel._make_request(b"x11-req", request)

    as_alice(attacked, ask)
    found = records(attacked, "channel.refused", before, 3)
    assert [record.detail["kind"] for record in found] == ["tun", "tap", "x11"]


VARIABLES = [
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LD_AUDIT",
    "BASH_ENV",
    "ENV",
    "PATH",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "IFS",
]
VARIABLES += ["HOME", "SHELL", "SSH_AUTH_SOCK", "SSH_ORIGINAL_COMMAND", "GIT_SSH_COMMAND", "BASH_FUNC_ls%%", "lc_all"]


@pytest.mark.attack("D3", "LD_PRELOAD, BASH_ENV, PATH, PYTHONPATH and others that change what runs")
def test_variables_that_change_what_runs_do_not_pass(attacked: GatewayUnderFire) -> None:
    """All are denied by name in one record of the journal; their values are neither set nor written down."""
    before = len(attacked.records("variable.denied"))

    async def ask(connection: Connection) -> str:
        return str((await connection.run("env", env=dict.fromkeys(VARIABLES, "/tmp/evil"))).stdout)

    assert "/tmp/evil" not in as_alice(attacked, ask)
    (found,) = records(attacked, "variable.denied", before, 1)
    assert sorted(str(found.detail["names"]).split(",")) == sorted(VARIABLES)
    assert found.detail["count"] == len(VARIABLES)
    assert "evil" not in str(found)


@pytest.mark.attack("D4", "subsystems other than sftp, and other spellings of it")
def test_another_subsystem_is_refused_and_journaled(attacked: GatewayUnderFire) -> None:
    """A subsystem is no way around what commands may be run."""
    names = ["netconf", "SFTP", "sftp ", "sftp\0", "sftp-server", "/bin/sh", "-", "x" * 5000]
    before = len(attacked.records("channel.refused"))

    async def ask(connection: Connection) -> None:
        for name in names:
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.create_process(subsystem=name)

    as_alice(attacked, ask)
    found = records(attacked, "channel.refused", before, len(names))
    assert [record.detail["asked"] for record in found] == [name[:255] for name in names]


@pytest.mark.attack("D5", "a command, a variable or a terminal's name with NUL; a command of many lines")
def test_a_nul_ends_nobodys_session(attacked: GatewayUnderFire) -> None:
    """The sshd of an environment ends its connection over a NUL, and alice's sessions share that connection."""

    async def ask(connection: Connection) -> str:
        async with await login(attacked.port, attacked.key("alice")) as other:
            held = await other.create_process("cat")
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.create_process("echo a\0b")
            await connection.run("true", env={"LC_X": "a\0b", "LC\0Y": "c"})
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.create_process("true", term_type="xterm\0")
            done = await connection.run("echo one\necho two\r\n# three")
            held.stdin.write("still here")
            held.stdin.write_eof()
            assert (await held.wait()).stdout == "still here"
            return str(done.stdout)

    assert as_alice(attacked, ask).startswith("one\ntwo")


@contextmanager
def ear(port: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Listen on the gateway's own loopback; yield the port and who came."""
    came: list[str] = []
    with socket.create_server(("127.0.0.1", port)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, address = listener.accept()
                except OSError:
                    return
                came.append(str(address))
                connection.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1]), came
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@pytest.mark.attack("C12", "a port of the gateway's own loopback, under a policy that allows everything")
def test_the_gateways_own_loopback_is_never_reached(tmp_path: Path) -> None:
    """Whatever the policy, a destination is looked for in the environment: there nobody listens."""
    gateway = TestGateway(tmp_path, allow_all)
    gateway.start()
    try:
        alice, bob, here = gateway.add_user("alice"), gateway.add_user("bob"), free_port()
        with (
            tunnel(gateway, "bob", bob, "-L", f"{here}:localhost:8888", wait_for=here),
            SecondUser(here) as second_user,
            ear() as (port, came),
        ):
            asyncio.run(knock_everywhere(gateway.port, alice, port))
            second_user.download()
        assert came == []
        assert second_user.complaints == []
        assert gateway.recorder.codes().count("forward.denied") == 1
    finally:
        gateway.stop()


async def knock_everywhere(gateway_port: int, key: Path, port: int) -> None:
    """Ask for one port under many names, then see that a second session of alice's was not hurt by it."""
    async with await login(gateway_port, key) as connection, await login(gateway_port, key) as other:
        held = await other.create_process("cat")
        for host in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "127.1", "::ffff:127.0.0.1", "0x7f000001", "a\0b"):  # noqa: S104
            await reason_of(connection.create_connection(Quiet, host, port))
        held.stdin.write_eof()
        assert (await held.wait()).exit_status == 0
