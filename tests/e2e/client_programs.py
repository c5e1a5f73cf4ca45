"""One connection of a client library, in a process of its own: `client_programs.py NAME ACTION PORT USER KEY FILE`.

`move` sends the file, receives it back, and prints the SHA-256 that the far side saw and its own of what came back.
`file` does the same through SFTP under an odd name. `idle` waits for a quiet command, asking the server each second
whether it is still there, and prints what the command said. A client that hangs is its caller's to end.
"""

import hashlib
import shlex
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, Protocol

BLOCK = 32768
HOST = "127.0.0.1"
ODD_NAME = " -a name; with ünïcode €, \"quotes\" 'of both kinds', $HOME and\ttab"
IDLE_SECONDS = 4


class Client(Protocol):
    """What every library is asked to do."""

    def run(self, command: str, data: bytes = b"") -> bytes:
        """Run a command with some input; return its output."""

    def put(self, data: bytes, name: str) -> None:
        """Write a file through SFTP."""

    def get(self, name: str) -> bytes:
        """Read a file through SFTP."""


class Libssh2:
    """ssh2-python, whose libssh2 asks for life while it waits."""

    def __init__(self, port: int, user: str, key: str) -> None:
        from ssh2.session import Session

        self.session = Session()
        self.session.handshake(socket.create_connection((HOST, port)))
        self.session.userauth_publickey_fromfile(user, key, "", f"{key}.pub")
        self.session.keepalive_config(True, 1)

    def run(self, command: str, data: bytes = b"") -> bytes:
        from ssh2.exceptions import Timeout

        channel = self.session.open_session()
        channel.execute(command)
        for at in range(0, len(data), BLOCK):
            channel.write(data[at : at + BLOCK])
        channel.send_eof()
        received = bytearray()
        while True:
            try:
                size, piece = channel.read(BLOCK)
            except Timeout:  # libssh2 has asked for life while it waited, and says so in this way
                continue
            if size <= 0:
                return bytes(received)
            received += piece

    def put(self, data: bytes, name: str) -> None:
        from ssh2.sftp import LIBSSH2_FXF_CREAT, LIBSSH2_FXF_WRITE

        with self.session.sftp_init().open(name, LIBSSH2_FXF_CREAT | LIBSSH2_FXF_WRITE, 0o644) as file:
            for at in range(0, len(data), BLOCK):
                file.write(data[at : at + BLOCK])

    def get(self, name: str) -> bytes:
        with self.session.sftp_init().open(name, 1, 0) as file:
            return b"".join(piece for _size, piece in file)


class Libssh:
    """ansible-pylibssh; its commands take no input, so that what is sent goes through SFTP."""

    def __init__(self, port: int, user: str, key: str) -> None:
        from pylibsshext.session import Session

        private = Path(key).read_bytes()
        self.session = Session()
        self.session.connect(
            host=HOST, port=port, user=user, private_key=private, host_key_checking=False, look_for_keys=False
        )

    def run(self, command: str, data: bytes = b"") -> bytes:
        if data:
            self.put(data, "sent by libssh")
            command = f"cat 'sent by libssh' | {command}"
        return bytes(self.session.new_channel().exec_command(command).stdout)

    def put(self, data: bytes, name: str) -> None:
        with tempfile.NamedTemporaryFile() as local:
            Path(local.name).write_bytes(data)
            self.session.sftp().put(local.name, name)

    def get(self, name: str) -> bytes:
        with tempfile.NamedTemporaryFile() as local:
            self.session.sftp().get(name, local.name)
            return Path(local.name).read_bytes()


class Paramiko:
    """paramiko, which Ansible and Fabric use; what it asks for life, it waits for no answer to."""

    def __init__(self, port: int, user: str, key: str) -> None:
        import paramiko

        self.client = paramiko.SSHClient()
        self.client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        self.client.connect(HOST, port, user, key_filename=key, look_for_keys=False, allow_agent=False, timeout=30)
        transport = self.client.get_transport()
        assert transport
        transport.set_keepalive(1)

    def run(self, command: str, data: bytes = b"") -> bytes:
        stdin, stdout, _stderr = self.client.exec_command(command)
        stdin.write(data)
        stdin.channel.shutdown_write()
        return stdout.read()

    def put(self, data: bytes, name: str) -> None:
        with self.client.open_sftp() as sftp, sftp.open(name, "wb") as file:
            file.set_pipelined()
            file.write(data)

    def get(self, name: str) -> bytes:
        with self.client.open_sftp() as sftp, sftp.open(name, "rb") as file:
            file.prefetch()
            return file.read()


class Asyncssh:
    """asyncssh, as a program without a loop of its own would use it; it ends a connection that does not answer."""

    def __init__(self, port: int, user: str, key: str) -> None:
        import asyncio

        import asyncssh

        self.loop = asyncio.new_event_loop()
        options: dict[str, Any] = {"known_hosts": None, "config": None, "keepalive_interval": 1}
        self.connection = self.loop.run_until_complete(
            asyncssh.connect(HOST, port, username=user, client_keys=[key], **options)
        )

    def run(self, command: str, data: bytes = b"") -> bytes:
        done = self.loop.run_until_complete(self.connection.run(command, input=data, encoding=None))
        return bytes(done.stdout or b"")

    def put(self, data: bytes, name: str) -> None:
        async def write() -> None:
            async with self.connection.start_sftp_client() as sftp, sftp.open(name, "wb") as file:
                await file.write(data)

        self.loop.run_until_complete(write())

    def get(self, name: str) -> bytes:
        async def read() -> bytes:
            async with self.connection.start_sftp_client() as sftp, sftp.open(name, "rb") as file:
                return bytes(await file.read())

        return self.loop.run_until_complete(read())


CLIENTS = {"libssh2": Libssh2, "libssh": Libssh, "paramiko": Paramiko, "asyncssh": Asyncssh}


def _main(name: str, action: str, port: str, user: str, key: str, file: str) -> None:
    client: Client = CLIENTS[name](int(port), user, key)
    data, stored = Path(file).read_bytes(), ODD_NAME if action == "file" else f"sent-by-{name}"
    place = shlex.quote(f"./{stored}")
    if action == "idle":
        print(client.run(f"sleep {IDLE_SECONDS}; echo still there").decode().strip())
        return
    if action == "file":
        client.put(data, stored)
        seen, received = client.run(f"sha256sum <{place}"), client.get(stored)
    else:
        seen, received = client.run(f"tee {place} | sha256sum", data), client.run(f"cat {place}")
    print(seen.decode().split()[0], hashlib.sha256(received).hexdigest())


if __name__ == "__main__":
    _main(*sys.argv[1:])
