"""One connection of a client library, in a process of its own: `client_programs.py NAME PORT USER KEY BYTES`.

Receives, then sends, so many bytes and prints both counts. A client that hangs is its caller's to end.
"""

import socket
import sys
import tempfile
from pathlib import Path

BLOCK = 32768
HOST = "127.0.0.1"


def libssh2(port: int, user: str, key: str, size: int) -> tuple[int, int]:
    from ssh2.session import Session

    session = Session()
    session.handshake(socket.create_connection((HOST, port)))
    session.userauth_publickey_fromfile(user, key, "", f"{key}.pub")
    channel, received = session.open_session(), 0
    channel.execute(f"head -c {size} /dev/zero")
    while (got := channel.read(BLOCK))[0] > 0:
        received += got[0]
    channel = session.open_session()
    channel.execute("wc -c")
    for at in range(0, size, BLOCK):
        channel.write(bytes(min(BLOCK, size - at)))
    channel.send_eof()
    return received, int(channel.read(64)[1])


def libssh(port: int, user: str, key: str, size: int) -> tuple[int, int]:
    from pylibsshext.session import Session

    session = Session()
    private = Path(key).read_bytes()
    session.connect(host=HOST, port=port, user=user, private_key=private, host_key_checking=False, look_for_keys=False)
    received = len(session.new_channel().exec_command(f"head -c {size} /dev/zero").stdout)
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(size))
        file.flush()
        session.sftp().put(file.name, "sent by libssh")
    return received, int(session.new_channel().exec_command("wc -c <'sent by libssh'").stdout)


def asyncssh_(port: int, user: str, key: str, size: int) -> tuple[int, int]:
    import asyncio

    import asyncssh

    async def move() -> tuple[int, int]:
        async with asyncssh.connect(
            HOST, port, username=user, client_keys=[key], known_hosts=None, config=None
        ) as connection:
            received = await connection.run(f"head -c {size} /dev/zero", encoding=None)
            sent = await connection.run("wc -c", input=bytes(size), encoding=None)
        return len(received.stdout or b""), int(sent.stdout or b"")

    return asyncio.run(move())


CLIENTS = {"libssh2": libssh2, "libssh": libssh, "asyncssh": asyncssh_}

if __name__ == "__main__":
    name, port, user, key, size = sys.argv[1:]
    print(*CLIENTS[name](int(port), user, key, int(size)))
