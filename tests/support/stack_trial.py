"""Starts a network stack for a sandbox-like process, and tries what is reached from inside.

`python stack_trial.py GATEWAY PROGRAM EGRESS MODE UID DIRECTORY ADDRESS:PORT…`, in a mount namespace of its own:
/dev/net/tun is replaced by a node of that mode. GATEWAY is `root`, or `user` for a gateway that is the sandbox's own
user. Prints a JSON list of the places that are reached.
"""

import json
import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from gateway.engines.bubblewrap import network

_REACH = "/mnt"
_TRY = """
import concurrent.futures, socket, sys
def reach(place):
    try:
        socket.create_connection(place.rsplit(":", 1), 3).close()
    except OSError:
        return
    print(place)
list(concurrent.futures.ThreadPoolExecutor(50).map(reach, sys.argv[1:]))
"""


def _replace_device(directory: Path, mode: int) -> None:
    node = directory / "tun"
    os.mknod(node, 0o020000, os.makedev(10, 200))
    node.chmod(mode)
    subprocess.run(["mount", "--bind", str(node), "/dev/net/tun"], check=True, timeout=60)


def _sandbox(uid: int) -> "subprocess.Popen[bytes]":
    """Start a user's process in a user and network namespace of its own, and wait until it is there."""
    user = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups"] if os.geteuid() == 0 else []
    command = [*user, "unshare", "--user", "--map-current-user", "--net", "--", "sleep", "100"]
    process, deadline = subprocess.Popen(command), time.monotonic() + 20
    while Path(f"/proc/{process.pid}/comm").read_text().strip() != "sleep":
        assert time.monotonic() < deadline, "the process in its namespaces did not start"
        time.sleep(0.01)
    return process


def _reached(sandbox: int, places: tuple[str, ...]) -> list[str]:
    user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
    enter = ["nsenter", f"--target={sandbox}", *user, "--net", "--", sys.executable, "-c", _TRY, *places]
    return subprocess.run(enter, capture_output=True, text=True, timeout=60, check=True).stdout.split()


def trial(program: str, egress: str, uid: str, *places: str) -> None:
    """Start sandbox and stack, and try each place."""
    sandbox = _sandbox(int(uid))
    stack = None
    ids = (int(uid), int(uid)) if os.geteuid() == 0 else None
    try:
        stack = network.start(network.Stack(program, "10.130.7", egress), sandbox.pid, ids=ids)
        print(json.dumps(_reached(sandbox.pid, places)))
    finally:
        sandbox.kill()
        if stack is not None:
            stack.terminate()


def main(gateway: str, program: str, egress: str, mode: str, uid: str, directory: str, *places: str) -> None:
    """Replace the device, and become the gateway's user."""
    _replace_device(Path(directory), int(mode, 8))
    if gateway == "root":
        trial(program, egress, uid, *places)
        return
    interpreter, variables = _within_reach()
    become = ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "--"]
    code = f"{_REACH}/tree/tests/support/stack_trial.py"
    os.execvpe("setpriv", [*become, interpreter, code, "trial", program, egress, uid, *places], variables)  # noqa: S606


def _within_reach() -> tuple[str, dict[str, str]]:
    """Show interpreter, packages and this tree where every user may look: a checkout may lie in root's home."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", _REACH], check=True, timeout=60)
    tree, packages = str(Path(__file__).parents[2]), sysconfig.get_path("purelib")
    places = {"python": sys.base_prefix, "tree": tree, "packages": packages}
    for name, place in places.items():
        Path(_REACH, name).mkdir()
        subprocess.run(["mount", "--bind", place, f"{_REACH}/{name}"], check=True, timeout=60)
    interpreter = f"{_REACH}/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    return interpreter, os.environ | {"PYTHONPATH": f"{_REACH}/tree:{_REACH}/packages", "PYTHONDONTWRITEBYTECODE": "1"}


if __name__ == "__main__":
    if sys.argv[1] == "trial":
        trial(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
