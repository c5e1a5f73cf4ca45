"""Ansible's own program on the role, and what it says that it changed."""

import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.packages.installers.namespace_host import NamespaceHost

ROOT = Path(__file__).resolve().parents[3]
_TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(?:devgw : )?(.*)\] \*", re.MULTILINE)
_SECONDS = 600


@dataclass(frozen=True)
class Outcome:
    """One run: the tasks that changed something, in order, and all that was said."""

    code: int
    changed: list[str]
    text: str


@dataclass
class ManagedSite:
    """A host, and the role's variables for it; `play` carries them out."""

    host: NamespaceHost
    programs: Path
    directory: Path
    variables: dict[str, Any] = field(default_factory=dict)

    def play(self, *flags: str, **variables: Any) -> Outcome:
        """Run the role; variables given here count for this run."""
        playbook, values = self.directory / "site.json", self.directory / "variables.json"
        playbook.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "roles": ["devgw"]}]))
        values.write_text(json.dumps(self.variables | variables))
        command = [str(self.programs / "ansible-playbook"), "-i", str(self._inventory()), "-e", f"@{values}", *flags]
        done = subprocess.run(
            [*command, str(playbook)],
            env=os.environ | self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        return Outcome(done.returncode, _changed(done.stdout), done.stdout + done.stderr)

    def _inventory(self) -> Path:
        place = self.directory / "inventory.json"
        host = {
            "ansible_host": "gw",
            "ansible_user": "root",
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_private_key_file": str(self.host.key),
            "ansible_ssh_common_args": self.host.ssh_options(self.directory),
        }
        place.write_text(json.dumps({"all": {"hosts": {"gw": host}}}))
        return place

    def _configuration(self) -> Path:
        """Return a file that says nothing, in the place of whoever runs the tests."""
        place = self.directory / "ansible.cfg"
        place.touch()
        return place

    def _environment(self) -> dict[str, str]:
        return {
            "ANSIBLE_CONFIG": str(self._configuration()),
            "ANSIBLE_HOME": str(self.directory / "ansible"),
            "ANSIBLE_ROLES_PATH": str(ROOT / "deploy/ansible/roles"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.directory / "cp"),
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_NOCOLOR": "true",
            "LC_ALL": "C.UTF-8",
        }


def _changed(text: str) -> list[str]:
    """Return the names of tasks with a line `changed:` below them."""
    parts = _TASK.split(text)
    return [name for name, said in zip(parts[1::2], parts[2::2], strict=True) if "\nchanged: [" in said]
