"""Clients that are not OpenSSH: they connect, move data both ways across key exchanges, and none hangs.

DEVGW_TEST_CLIENT_BYTES says how much, of which a third begins a new key exchange; `make clients` moves 300 MB.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.e2e.client_programs import CLIENTS, IDLE_SECONDS
from tests.support.ssh_gateway import TestGateway

SIZE = int(os.environ.get("DEVGW_TEST_CLIENT_BYTES", "12000000"))
REKEY_BYTES = SIZE // 3
SECONDS = 60 + SIZE // 2_000_000
ODD_NAME = "a name, with ünïcode €, 'quotes'"
"""Of files that programs move; libraries take an odder one."""


@dataclass
class Site:
    """A gateway, alice's key in the forms that clients want, and a place for their own files."""

    gateway: TestGateway
    key: Path
    home: Path

    @property
    def data(self) -> Path:
        """What is sent and received."""
        return self.home / "data"

    def run(self, *command: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        """Run a client to its end, which must come."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LC_ALL": "C.UTF-8"}
        return subprocess.run(
            command, input=stdin, capture_output=True, timeout=SECONDS, check=False, cwd=self.home, env=environment
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Keys are exchanged anew twice in each direction; MACs are opened for libssh2 before 1.11."""
    root = tmp_path_factory.mktemp("clients")
    macs = ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-512", "hmac-sha2-256"]
    gateway = TestGateway(root, rekey_bytes=REKEY_BYTES, macs=macs)
    gateway.start()
    try:
        site = Site(gateway, gateway.add_user("alice"), root)
        site.data.write_bytes(os.urandom(SIZE))  # zeros would look right in any order
        (root / ".ssh").mkdir()
        for command in (
            ("dropbearconvert", "openssh", "dropbear", str(site.key), "dropbear"),
            ("puttygen", str(site.key), "-o", "putty.ppk"),
        ):
            assert site.run(*command).returncode == 0
        yield site
    finally:
        gateway.stop()


@pytest.fixture
def host_key(site: Site) -> str:
    line = site.gateway.host_key_line
    shown = subprocess.run(["ssh-keygen", "-lf", "-"], input=line.encode(), capture_output=True, check=True, timeout=60)
    return shown.stdout.decode().split()[1]


def library(site: Site, name: str, action: str) -> "subprocess.CompletedProcess[bytes]":
    program = str(Path(__file__).with_name("client_programs.py"))
    reach = (str(site.gateway.port), "alice", str(site.key), str(site.data))
    return site.run(sys.executable, program, name, action, *reach)


@pytest.mark.parametrize("action", ["move", "file"])
@pytest.mark.parametrize("name", list(CLIENTS))
def test_a_library_moves_data_both_ways(site: Site, name: str, action: str) -> None:
    """Through commands, and as a file of an odd name; libssh2 stopped for ever at the gateway's change of cipher."""
    digest = hashlib.sha256(site.data.read_bytes()).hexdigest().encode()
    done = library(site, name, action)
    assert done.stdout.split() == [digest] * 2, done.stderr


@pytest.mark.parametrize("name", list(CLIENTS))
def test_a_library_stays_connected_while_nothing_moves(site: Site, name: str) -> None:
    """It asks each second whether the server is there, and hears so."""
    done = library(site, name, "idle")
    assert done.stdout == b"still there\n", done.stderr


def dropbear(site: Site, _host_key: str) -> list[str]:
    return ["dbclient", "-y", "-K", "1", "-i", "dropbear", "-p", str(site.gateway.port), "alice@127.0.0.1"]


def putty(site: Site, host_key: str) -> list[str]:
    options = ["-batch", "-ssh", "-P", str(site.gateway.port), "-i", "putty.ppk", "-hostkey", host_key]
    return ["plink", *options, "alice@127.0.0.1"]


def openssh(site: Site, _host_key: str) -> list[str]:
    return site.gateway.ssh("alice", site.key, before=["-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=2"])


@pytest.mark.parametrize("client", [openssh, dropbear, putty], ids=lambda client: str(client.__name__))
def test_a_program_stays_connected_while_nothing_moves(site: Site, host_key: str, client: object) -> None:
    """OpenSSH and Dropbear ask each second whether the server is there, and would leave it without an answer."""
    done = site.run(*client(site, host_key), f"sleep {IDLE_SECONDS}; echo still there")  # type: ignore[operator]
    assert (done.stdout, done.returncode) == (b"still there\n", 0), done.stderr


@pytest.mark.parametrize("client", [dropbear, putty], ids=["dropbear", "putty"])
def test_a_program_moves_data_both_ways_and_keeps_the_exit_code(site: Site, host_key: str, client: object) -> None:
    """Dropbear sends a guessed key exchange packet with its first one (RFC 4253 §7) and was disconnected."""
    command = client(site, host_key)  # type: ignore[operator]
    data = site.data.read_bytes()
    assert site.run(*command, "tee sent | wc -c", stdin=data).stdout.strip() == str(SIZE).encode()
    assert site.run(*command, "cat sent").stdout == data
    done = site.run(*command, "echo right; exit 3")
    assert (done.stdout, done.returncode) == (b"right\n", 3), done.stderr


def curl(site: Site, _host_key: str, local: Path, back: Path) -> list[list[str]]:
    place = f"sftp://127.0.0.1:{site.gateway.port}/~/{quote(f'curl {ODD_NAME}')}"
    options = ["curl", "-sS", "-k", "--key", str(site.key), "--pubkey", f"{site.key}.pub", "-u", "alice:"]
    return [[*options, "-T", str(local), place], [*options, "-o", str(back), place]]


def lftp(site: Site, _host_key: str, local: Path, back: Path) -> list[list[str]]:
    program = f"ssh -a -x {' '.join(site.gateway.options(site.key))}"
    script = f'set sftp:connect-program "{program}"; open -u alice, sftp://127.0.0.1:{site.gateway.port}; '
    return [["lftp", "-c", f'{script} put "{local}" -o "{ODD_NAME}"; get "{ODD_NAME}" -o "{back}"']]


def psftp(site: Site, host_key: str, local: Path, back: Path) -> list[list[str]]:
    batch = site.home / "psftp.batch"
    name = f"psftp {ODD_NAME}"
    batch.write_text(f'put "{local}" "{name}"\nget "{name}" "{back}"\n')
    options = ["-batch", "-P", str(site.gateway.port), "-i", "putty.ppk", "-hostkey", host_key, "-b", str(batch)]
    return [["psftp", *options, "alice@127.0.0.1"]]


@pytest.mark.parametrize("client", [curl, lftp, psftp], ids=lambda client: str(client.__name__))
def test_a_file_goes_there_and_back_through_sftp(site: Site, host_key: str, client: object) -> None:
    """With spaces, quotes and other letters in its name where the client can say them."""
    local, back = site.home / "local", site.home / f"back-{client.__name__}"  # type: ignore[attr-defined]
    local.write_bytes(site.data.read_bytes())
    for command in client(site, host_key, local, back):  # type: ignore[operator]
        done = site.run(*command)
        assert done.returncode == 0, done.stderr
    assert back.read_bytes() == local.read_bytes()


@contextmanager
def mounted(site: Site) -> Iterator[Path]:
    """Alice's home in a folder of this machine."""
    place = site.home / "mounted"
    place.mkdir(exist_ok=True)
    program = f"ssh_command=ssh {' '.join(site.gateway.options(site.key))}"
    options = ["-p", str(site.gateway.port), "-o", program, "-o", "ServerAliveInterval=1"]
    done = site.run("sshfs", "alice@127.0.0.1:", str(place), *options)
    assert done.returncode == 0, done.stderr
    try:
        yield place
    finally:
        assert site.run("fusermount3", "-u", str(place)).returncode == 0


def test_a_home_is_mounted_by_sshfs(site: Site) -> None:
    """What is written by one mount is read by the next, and belongs to the user inside."""
    with mounted(site) as home:
        (home / f"sshfs {ODD_NAME}").write_bytes(site.data.read_bytes())
    with mounted(site) as home:
        assert (home / f"sshfs {ODD_NAME}").read_bytes() == site.data.read_bytes()
        (home / f"sshfs {ODD_NAME}").rename(home / "renamed")
        assert [entry.name for entry in home.iterdir() if "sshfs" in entry.name] == []
    done = site.run(*site.gateway.ssh("alice", site.key, "test -O renamed && stat -c %s renamed"))
    assert done.stdout.split() == [str(SIZE).encode()]


def test_an_old_curl_stays_outside_unless_the_site_opens_macs(tmp_path: Path) -> None:
    """As `docs/reference/ssh.md` says: libssh2 1.10 of Debian 12 knows no encrypt-then-MAC."""
    gateway = TestGateway(tmp_path)
    gateway.start()
    try:
        site = Site(gateway, gateway.add_user("alice"), tmp_path)
        version = site.run("curl", "-V").stdout
        assert b"libssh2/1." in version
        done = site.run(*curl(site, "", tmp_path / "x", tmp_path / "back")[1])
        is_old = b"libssh2/1.10" in version or b"libssh2/1.9" in version
        assert (b"Unable to exchange encryption keys" in done.stderr) is is_old
    finally:
        gateway.stop()
