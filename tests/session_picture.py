"""Records README's picture: a gateway, a create, a login and the journal, as they really answer.

`tests/setup/with_engine python -m tests.session_picture` writes docs/session.svg anew.
"""

import io
import os
import pty
import re
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.support.engine_variables import engine_variables
from tests.support.gateway_process import GatewayProcess

PICTURE = Path(__file__).parents[1] / "docs" / "session.svg"
_WIDTH = 104
_SECRET = re.compile(r"\b[a-z2-9]{5}(-[a-z2-9]{5}){3}\b")
_SPINNER = re.compile(r"[\u2800-\u28ff]")
_REMOTE_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
_SECONDS = 120


def main() -> None:
    """Run each step on a terminal and write down what it shows."""
    screen = Console(record=True, width=_WIDTH, file=io.StringIO())
    with tempfile.TemporaryDirectory(prefix="devgw-picture-") as folder:
        gateway = GatewayProcess(Path(folder), engine_variables() | {"DEVGW_SERVER_PUBLIC_HOST": "gateway"})
        try:
            gateway.devgw("init")
            key = f"{gateway.make_key('alice')}.pub"
            create = _devgw("create", "alice", "--gpu", "1", "--key", key)
            _step(screen, gateway, "admin$", "devgw create alice --gpu 1 --key alice.pub", create)
            gateway.serve()
            step = partial(_step, screen, gateway)
            step("alice$", "ssh -p 2222 alice@gateway 'id; nproc'", gateway.ssh_command("alice", "id; nproc"))
            refused = ["ssh", "-o", "LogLevel=INFO", *gateway.ssh_command("alice", "-W", "169.254.169.254:80")[1:]]
            step("alice$", "ssh -p 2222 -W 169.254.169.254:80 alice@gateway", refused)
            step("admin$", "devgw list", _devgw("list"))
            log = ("audit", "log", "--user", "alice", "--action", "forward.denied")
            step("admin$", f"devgw {' '.join(log)}", _devgw(*log))
        finally:
            gateway.close()
    print(screen.export_text(clear=False))
    PICTURE.write_text(_REMOTE_FONT.sub("", screen.export_svg(title="devgw")))


def _devgw(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gateway", *arguments]


def _step(screen: Console, gateway: GatewayProcess, prompt: str, shown: str, command: list[str]) -> None:
    screen.print(Text.assemble((f"{prompt} ", "bold green"), (shown, "bold")))
    text = _SECRET.sub("xxxxx-xxxxx-xxxxx-xxxxx", _on_a_terminal(command, gateway.environ | {"COLUMNS": str(_WIDTH)}))
    text = text.replace(str(gateway.root), "…").replace(str(gateway.port), "2222")
    screen.print(Text.from_ansi(text.strip("\n")))
    screen.print()


def _on_a_terminal(command: list[str], environ: dict[str, str]) -> str:
    """Run a command with a terminal of its own, and return what it shows at the end of each line."""
    ours, theirs = pty.openpty()
    shown = bytearray()
    running = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    os.close(theirs)
    with suppress(OSError):  # EIO: the other end is closed (pty(7))
        while block := os.read(ours, 4096):
            shown += block
    running.wait(timeout=_SECONDS)
    os.close(ours)
    lines = shown.decode(errors="replace").replace("\r\n", "\n").split("\n")
    return "\n".join(
        re.sub(r"\x1b\[\??[0-9]*[A-LhKl]", "", line.rstrip("\r").rpartition("\r")[2])
        for line in lines
        if not _SPINNER.search(line)
    )


if __name__ == "__main__":
    main()
