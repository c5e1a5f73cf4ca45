"""The variables of a project: which its file may set, and how sessions come by them."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from devgw_environment.project.substitution import substitute
from devgw_environment.project.text import shown

LONGEST_VALUE = 16 * 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEPT = frozenset(
    {
        "_", "BASHOPTS", "BASHPID", "BASH_ENV", "CDPATH", "ENV", "EUID", "HOME", "IFS", "LOGNAME", "MAIL", "OLDPWD",
        "PPID", "PROMPT_COMMAND", "PS4", "PWD", "SHELL", "SHELLOPTS", "SHLVL", "TERM", "TMPDIR", "UID", "USER",
        "GLOBIGNORE",
    }
)  # fmt: skip
"""What the session sets itself, and what changes how every shell reads its commands."""
_KEPT_PREFIXES = ("BASH_", "DEVGW_", "DOCKER_RESOURCE_", "LD_", "NVIDIA_", "SSH_")
_PROXIES = frozenset({"http_proxy", "https_proxy", "no_proxy"})


def settle_variables(
    layers: Sequence[Mapping[str, str | None]], folder: Path, given: Mapping[str, str]
) -> tuple[dict[str, str | None], list[str]]:
    """Return the variables as sessions get them (None: taken away), and the names that are left as they are.

    A layer sees what those before it have set. A PATH keeps the environment's own folders at its end, whatever it was
    made of: a session must find its programs.
    """
    settled: dict[str, str | None] = {}
    refused: list[str] = []
    for asked in layers:
        there = with_variables(given, settled)
        for name, value in asked.items():
            text = None if value is None else substitute(value, folder, there)
            if not _may_set(name, given) or (text is not None and (len(text) > LONGEST_VALUE or "\0" in text)):
                refused.append(shown(name, 40))
            elif name == "PATH":
                parts = [*(text or "").split(":"), *there.get("PATH", "").split(":")]
                settled[name] = ":".join(dict.fromkeys(part for part in parts if part))
            else:
                settled[name] = text
    return settled, list(dict.fromkeys(refused))


def with_variables(given: Mapping[str, str], settled: Mapping[str, str | None]) -> dict[str, str]:
    """What is there with variables that were set and without those that were taken away."""
    changed = {**given, **settled}
    return {name: value for name, value in changed.items() if value is not None}


def _may_set(name: str, given: Mapping[str, str]) -> bool:
    """Whether a file may set this variable; a proxy may be, where the gateway leads tools to none of its own."""
    return (
        _NAME.fullmatch(name) is not None
        and name not in _KEPT
        and not name.startswith(_KEPT_PREFIXES)
        and not (name.lower() in _PROXIES and name in given)
    )


def shell_lines(variables: Mapping[str, str | None]) -> str:
    """What sh and bash read to have them."""
    lines = [
        f"unset {name}" if value is None else f"export {name}={shlex.quote(value)}"
        for name, value in sorted(variables.items())
    ]
    return "".join(f"{line}\n" for line in lines)
