"""Hosts outside that are open by name: what the gateway says of them, and how tools are led there."""

import contextlib
import json
from dataclasses import dataclass

from devgw_environment.contract import Environment

NOT_LED = "localhost,127.0.0.1,::1"


@dataclass(frozen=True)
class OpenHosts:
    """What `egress.json` says. Without hosts, or where the environment has a network of its own, no tool is led."""

    port: int
    leads_tools: bool


def read_open_hosts(environment: Environment) -> OpenHosts | None:
    """The gateway's word; None where an older gateway says nothing, or no host is open."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found = json.loads((environment.config_folder / "egress.json").read_text())
        port, hosts = found.get("port"), found.get("hosts")
        if isinstance(port, int) and 1023 < port < 65536 and hosts:
            return OpenHosts(port, found.get("lead_tools") is True)
    return None


def proxy_variables(environment: Environment) -> dict[str, str]:
    """What curl, pip, git, conda, npm, Hugging Face's libraries and most others read; nothing where none is led."""
    found = read_open_hosts(environment)
    if found is None or not found.leads_tools:
        return {}
    variables = {"NODE_USE_ENV_PROXY": "1"}
    for name in ("http_proxy", "https_proxy"):
        variables[name] = variables[name.upper()] = f"http://127.0.0.1:{found.port}"
    return {**variables, "no_proxy": NOT_LED, "NO_PROXY": NOT_LED}
