"""Two gateways of the tests' own, and alice's move from the one to the other."""

import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.gateway_process import GatewayProcess
from tests.support.ssh_login import AdministratorLogin

_ROOT = Path(__file__).parents[2]
_MOVE_SECONDS = 300


@dataclass
class TwoGateways:
    """The source, which serves and has alice, the target, which serves, and the way from the one to the other."""

    source: GatewayProcess
    target: GatewayProcess
    login: AdministratorLogin
    program: str = "gateway"
    marks: dict[str, Path] = field(default_factory=dict)

    def move(self, *arguments: str, ssh: str = "") -> "subprocess.CompletedProcess[str]":
        """Run `devgw move alice …` on the source."""
        return subprocess.run(
            self.command(*arguments, ssh=ssh), env=self.variables(), capture_output=True, text=True,
            timeout=_MOVE_SECONDS, check=False, cwd=_ROOT,
        )  # fmt: skip

    def command(self, *arguments: str, ssh: str = "") -> list[str]:
        """Return the argv of `devgw move alice …`; the target's command is called with its own directories."""
        own = {name: value for name, value in self.target.environ.items() if name.startswith("DEVGW_")}
        own |= {"DYING_MARKS": str(self.marks["target"])} if self.marks else {}
        words = [f"{name}={value}" for name, value in own.items()]
        remote = shlex.join(["env", "-C", str(_ROOT), *words, sys.executable, "-m", self.program])
        command = [sys.executable, "-m", self.program, "move", "alice", *arguments]
        return [*command, "--ssh", ssh or self.login.ssh(), "--devgw", remote]

    def variables(self) -> dict[str, str]:
        """Return what the command's environment is."""
        return self.source.environ | ({"DYING_MARKS": str(self.marks["source"])} if self.marks else {})

    def doors(self) -> dict[str, str | None]:
        """Return why alice is not let in on each host; None where she is."""
        found: dict[str, str | None] = {}
        for name, gateway in (("source", self.source), ("target", self.target)):
            users = {one["name"]: one for one in gateway.devgw_json("user", "list")["users"]}
            found[name] = users["alice"]["closed_because"] if "alice" in users else "nobody"
        return found
