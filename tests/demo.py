"""`make demo`: the main job for real, each step timed. On a terminal it stays up until Ctrl-C, else it cleans up."""

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import requests

from tests.support.engine_variables import engine_variables
from tests.support.gateway_process import GatewayProcess
from tests.support.notebook_client import NotebookClient

CELL = (
    "import torch, getpass, socket; print(f'{getpass.getuser()} on {socket.gethostname()}: torch {torch.__version__}')"
)
CLASSIFIER = Path(__file__).parents[1] / "containers/runner/examples/small_classifier.py"
TRAINING = "devgw-run small_classifier.py --steps 5"
"""A taste; three epochs reach the accuracy that the example states."""


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is done and how long it took."""
    print(f"  {what:<62}", end="", flush=True)
    begin = time.monotonic()
    yield
    print(f"{time.monotonic() - begin:6.1f} s", flush=True)


def main() -> int:
    """Run the demonstration; return the exit code."""
    root = Path(tempfile.mkdtemp(prefix="devgw-demo-"))
    gateway = GatewayProcess(root, engine_variables())
    with ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, root, ignore_errors=True)
        cleanup.callback(close, gateway)
        print("devgw demo: one SSH port in front of alice's own container\n")
        password = bring_up(gateway)
        with gateway.tunnel("alice") as port, gateway.tunnel("alice", "devgw:80") as page:
            use(gateway, port, password)
            with step(f"ssh -L {page}:devgw:80 alice@gateway; look at the gateway's page"):
                look(page)
            print(f"the gateway's page: http://localhost:{page}")
            if sys.stdout.isatty():
                stay(gateway, port, page, password)
    print("\nall of it worked, and all of it is gone again")
    return 0


def bring_up(gateway: GatewayProcess) -> str:
    """Start a gateway and make alice's environment; return her notebook password."""
    with step("devgw init"):
        gateway.devgw("init")
    with step("devgw serve"):
        gateway.serve()
    with step("devgw create alice --key alice.pub"):
        return gateway.create("alice")


def use(gateway: GatewayProcess, port: int, password: str) -> None:
    """Do what alice would do on her first day."""
    with step(f"ssh -L {port}:localhost:8888 alice@gateway; log in to Jupyter"):
        browser = NotebookClient(f"http://localhost:{port}")
        browser.login(password)
    with step("run a cell in a kernel"):
        answer = browser.execute(CELL).strip()
    with step("ssh alice@gateway 'exit 5' comes back as 5"):
        assert gateway.ssh("alice", "exit 5").returncode == 5
    with step("scp small_classifier.py alice@gateway:"):
        assert gateway.copy("scp", "alice", str(CLASSIFIER), "gateway:").returncode == 0
    with step(f"ssh alice@gateway {TRAINING}"):
        trained = gateway.ssh("alice", TRAINING)
        assert trained.returncode == 0, trained.stderr.decode()
    print(f"\nthe cell printed: {answer}")
    print(f"the training ended with: {trained.stdout.decode().splitlines()[-1]}")


def look(page: int) -> None:
    """Open the page as a browser does: no login but SSH's."""
    with requests.Session() as session:
        session.trust_env = False
        shown = session.get(f"http://localhost:{page}/", timeout=60)
        assert "Your environments" in shown.text, shown.text


def stay(gateway: GatewayProcess, port: int, page: int, password: str) -> None:
    """Leave everything up for the person at the terminal."""
    print(f"\nopen http://localhost:{port} with the password {password},")
    print(f"open http://localhost:{page} without one, or run\n")
    print("  " + " ".join(gateway.ssh_command("alice")))
    print("  " + " ".join(gateway.ssh_command("alice", "-t", "devgw-top")))
    print("\nCtrl-C ends the demo")
    try:
        signal.pause()
    except KeyboardInterrupt:
        print()


def close(gateway: GatewayProcess) -> None:
    """Stop the server and delete alice's environment."""
    with step("clean up"):
        gateway.close()


if __name__ == "__main__":
    sys.exit(main())
