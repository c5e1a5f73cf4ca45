"""Tells an environment which hosts outside are open to it by name: `egress.json`, and a line for people."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.environments.account import swap_in
from gateway.environments.layout import Layout, disk_error

FILE, NOTE = "egress.json", "egress_note"
_SHOWN = 4


@dataclass(frozen=True, slots=True)
class OpenHosts:
    """What is open to one environment. `has_network`: it has connections of its own beside these."""

    hosts: Sequence[str]
    port: int
    contact: str
    has_network: bool = False

    @property
    def note(self) -> str:
        """One line for who logs in; nothing where the environment has a network and no names are open."""
        if self.hosts:
            more = f" and {len(self.hosts) - _SHOWN} more" if len(self.hosts) > _SHOWN else ""
            beside = "beside its network" if self.has_network else "connections outside"
            return f"{beside}, by name: {', '.join(self.hosts[:_SHOWN])}{more}; for others ask {self.contact}"
        if self.has_network:
            return ""
        return f"no host outside is open to you, so pip, conda, git and the like find none; ask {self.contact}"


def write_open_hosts(layout: Layout, uid: int, gid: int, found: OpenHosts) -> None:
    """Write both files where they would differ. Raises: StoreError."""
    # where the environment has a network of its own, tools go there by themselves and are not led to the proxy
    about = {"version": 1, "hosts": list(found.hosts), "port": found.port, "lead_tools": not found.has_network}
    texts = {FILE: json.dumps(about) + "\n", NOTE: f"devgw: {found.note}\n" if found.note else ""}
    try:
        for name, text in texts.items():
            path = layout.config / name
            if not path.exists() or path.read_text() != text:
                swap_in(path, text, 0o444, uid, gid)
    except OSError as exc:
        raise disk_error(exc, layout.config) from exc
