"""docs/tutorial/first-training.md, done as it is written: every command over ssh in a real environment."""

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.gateway_process import GatewayProcess, poll

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorial" / "first-training.md").read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [block for block in BLOCKS if block.startswith(("devgw-run ", "python "))]
USER = "bob"


def run(gateway: GatewayProcess, command: str) -> str:
    """Run a block of commands as the page's reader does; return both streams."""
    done = gateway.ssh(USER, f"set -e\n{command}")
    shown = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, f"{command}\n{shown}"
    return shown


def interrupt(gateway: GatewayProcess, command: str, after: str) -> str:
    """Type a command at a terminal and press Ctrl-C when something was seen; return all that was shown."""
    near, far = pty.openpty()
    client = subprocess.Popen(gateway.ssh_command(USER, "-tt", command), stdin=far, stdout=far, stderr=far)
    os.close(far)
    shown = bytearray()

    def has_shown() -> bool:
        shown.extend(os.read(near, 65536))
        return after.encode() in shown

    try:
        poll(has_shown, after, 120)
        os.write(near, b"\x03")
        try:
            while block := os.read(near, 65536):
                shown.extend(block)
        except OSError:  # the far end is closed
            pass
        assert client.wait(60) == 130
    finally:
        client.kill()
        client.wait(timeout=60)
        os.close(near)
    return shown.decode(errors="replace")


def test_the_tutorial_leads_where_it_says(gateway: GatewayProcess) -> None:
    """Trained, interrupted, resumed, looked into, exported, left running: with the words the page shows."""
    doctor, explain, train, checkpoints, third, draw, export, detach = COMMANDS
    gateway.ssh(USER, "rm -rf /checkpoints/small_classifier /logs/small_classifier")
    assert "scp -P 2222 containers/runner/examples/small_classifier.py" in PAGE
    example = str(ROOT / "containers/runner/examples/small_classifier.py")
    assert gateway.copy("scp", USER, example, "gateway:").returncode == 0
    gateway.ssh(USER, doctor)  # what it finds is the machine's
    assert "device=cpu" in run(gateway, explain)
    assert "finished at step 256" in run(gateway, train)
    assert re.search(r"step-00000256 .* intact", run(gateway, checkpoints))
    interrupted = interrupt(gateway, third, after="train step 2")
    assert "resumed from step-00000256" in interrupted
    assert "stopped by SIGINT" in interrupted
    assert "finished at step 384" in run(gateway, third)
    assert [line for line in run(gateway, draw).split() if line.endswith(".png")] == [
        "feature-maps/00-conv1.png",
        "feature-maps/01-conv2.png",
        "feature-maps/02-conv3.png",
    ]
    run(gateway, f"{export}\ntest -s small.safetensors")
    assert "finished at step 40" in run(gateway, detach)


def test_settings_are_searched_where_nothing_can_be_installed(gateway: GatewayProcess) -> None:
    """docs/howto/sweep-the-settings.md, in an environment without connections outside: what it needs is there."""
    example = str(ROOT / "containers/runner/examples/small_classifier.py")
    assert gateway.copy("scp", USER, example, "gateway:").returncode == 0
    line = (
        "devgw-run sweep small_classifier.py --try learning_rate=1e-4..1e-2:log --metric accuracy --trials 2 --steps 4"
    )
    shown = run(gateway, f"rm -rf /checkpoints/small_classifier-sweep /logs/small_classifier-sweep\n{line}")
    assert "best of 2: trial-000" in shown
    assert "train with it: devgw-run small_classifier.py --steps 4 --learning-rate=" in shown
