"""One connection of a client library, in a process of its own: `client_programs.py NAME PORT USER KEY FILE`.

Sends the file, receives it back, and prints the SHA-256 that the far side saw and its own of what came back. A client
that hangs is its caller's to end.
"""

import hashlib
import socket
import sys
from pathlib import Path

BLOCK = 32768
HOST = "127.0.0.1"


def libssh2(port: int, user: str, key: str, file: str) -> tuple[str, bytes]:
    from ssh2.session import Session

    session = Session()
    session.handshake(socket.create_connection((HOST, port)))
    session.userauth_publickey_fromfile(user, key, "", f"{key}.pub")
    channel, data = session.open_session(), Path(file).read_bytes()
    channel.execute("tee sent-by-libssh2 | sha256sum")
    for at in range(0, len(data), BLOCK):
        channel.write(data[at : at + BLOCK])
    channel.send_eof()
    seen = channel.read(64)[1].decode()
    channel, received = session.open_session(), bytearray()
    channel.execute("cat sent-by-libssh2")
    while (got := channel.read(BLOCK))[0] > 0:
        received += got[1]
    return seen, bytes(received)


def libssh(port: int, user: str, key: str, file: str) -> tuple[str, bytes]:
    from pylibsshext.session import Session

    session = Session()
    private = Path(key).read_bytes()
    session.connect(host=HOST, port=port, user=user, private_key=private, host_key_checking=False, look_for_keys=False)
    session.sftp().put(file, "sent by libssh")
    seen = session.new_channel().exec_command("sha256sum <'sent by libssh'").stdout.decode()
    return seen, session.new_channel().exec_command("cat 'sent by libssh'").stdout


def asyncssh_(port: int, user: str, key: str, file: str) -> tuple[str, bytes]:
    import asyncio

    import asyncssh

    data = Path(file).read_bytes()

    async def move() -> tuple[str, bytes]:
        async with asyncssh.connect(
            HOST, port, username=user, client_keys=[key], known_hosts=None, config=None
        ) as connection:
            sent = await connection.run("tee sent-by-asyncssh | sha256sum", input=data, encoding=None)
            received = await connection.run("cat sent-by-asyncssh", encoding=None)
        return bytes(sent.stdout or b"").decode(), bytes(received.stdout or b"")

    return asyncio.run(move())


CLIENTS = {"libssh2": libssh2, "libssh": libssh, "asyncssh": asyncssh_}

if __name__ == "__main__":
    name, port, user, key, file = sys.argv[1:]
    seen, received = CLIENTS[name](int(port), user, key, file)
    print(seen.split()[0], hashlib.sha256(received).hexdigest())
