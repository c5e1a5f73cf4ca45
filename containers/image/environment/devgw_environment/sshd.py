"""How OpenSSH's sshd is started for one connection, unprivileged and on a socket it inherits."""

import os
from pathlib import Path

from devgw_environment.contract import Environment, find_program

SETTINGS = Path(__file__).with_name("sshd_config")

# What sshd, the login shell or the terminal sets itself; a value from the container would be wrong there.
SET_BY_THE_SESSION = {
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TERM",
    "PWD",
    "OLDPWD",
    "SHLVL",
    "_",
    "HOSTNAME",
    "PATH",
    "MAIL",
}


def sshd_command(environment: Environment) -> list[str]:
    """Command line of `sshd -i`: settings from the file beside this module, places from the environment."""
    options = [
        f"HostKey={environment.host_key}",
        f"TrustedUserCAKeys={environment.user_ca}",
        f"SetEnv={quote_variables(session_variables(environment))}",
    ]
    return [
        find_program("DEVGW_SSHD", "sshd"), "-i", "-e", "-f", str(SETTINGS),
        *(part for option in options for part in ("-o", option)),
    ]  # fmt: skip


def session_variables(environment: Environment) -> dict[str, str]:
    """Variables that a session shall see: those of the environment (its GPUs among them), and the search path."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in SET_BY_THE_SESSION and not is_personal(name) and name.isidentifier() and is_quotable(value)
    }
    return {"PATH": environment.search_path, **environment.tool_variables, **inherited}


def is_personal(name: str) -> bool:
    """Whether a variable is a person's own: SetEnv would win over what their client sends (sshd_config(5))."""
    return name in {"LANG", "LANGUAGE", "TZ", "COLORTERM", "NO_COLOR"} or name.startswith("LC_")


def is_quotable(value: str) -> bool:
    """Whether sshd's parser can carry the value inside double quotes (it has no escape for these on every version)."""
    return not any(character in value for character in '"\\\n\r')


def quote_variables(variables: dict[str, str]) -> str:
    """The argument of SetEnv: `"NAME=value"` words (sshd_config(5))."""
    return " ".join(f'"{name}={value}"' for name, value in variables.items())
