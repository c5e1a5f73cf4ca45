"""Starts a network stack for a sandbox-like process: `python stack_trial.py PROGRAM MODE UID DIRECTORY ADDRESS:PORT…`.

To be run in a mount namespace of its own: /dev/net/tun is replaced by a node of that mode. Prints a JSON object: whose
process the stack is, and what each address answered from inside.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from gateway.engines.bubblewrap import network

_TRY = """
import socket, sys
for place in sys.argv[1:]:
    try:
        with socket.create_connection(place.rsplit(":", 1), 3) as connection:
            print(place, connection.recv(4).decode())
    except OSError:
        print(place, "nothing")
"""


def _replace_device(directory: Path, mode: int) -> None:
    node = directory / "tun"
    os.mknod(node, 0o020000, os.makedev(10, 200))
    node.chmod(mode)
    subprocess.run(["mount", "--bind", str(node), "/dev/net/tun"], check=True, timeout=60)


def _sandbox(uid: int) -> "subprocess.Popen[bytes]":
    """Start a user's process in a user and network namespace of its own, and wait until it is there."""
    user = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
    command = [*user, "unshare", "--user", "--map-current-user", "--net", "--", "sleep", "100"]
    process, deadline = subprocess.Popen(command), time.monotonic() + 20
    while Path(f"/proc/{process.pid}/comm").read_text().strip() != "sleep":
        assert time.monotonic() < deadline, "the process in its namespaces did not start"
        time.sleep(0.01)
    return process


def main(program: str, mode: str, uid: str, directory: str, *places: str) -> None:
    _replace_device(Path(directory), int(mode, 8))
    sandbox = _sandbox(int(uid))
    stack = None
    try:
        stack = network.start(network.Stack(program, "10.130.7", "internet"), sandbox.pid, ids=(int(uid), int(uid)))
        enter = ["nsenter", f"--net=/proc/{sandbox.pid}/ns/net", "--", sys.executable, "-c", _TRY, *places]
        said = subprocess.run(enter, capture_output=True, text=True, timeout=60, check=True).stdout
        answers = dict(line.rsplit(" ", 1) for line in said.splitlines())
        print(json.dumps({"uid": Path(f"/proc/{stack.pid}").stat().st_uid, "answers": answers}))
    finally:
        sandbox.kill()
        if stack is not None:
            stack.terminate()


if __name__ == "__main__":
    main(*sys.argv[1:])
