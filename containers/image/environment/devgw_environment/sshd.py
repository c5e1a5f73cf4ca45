"""How OpenSSH's sshd is started for one connection, unprivileged and on a socket it inherits."""

import os
import re
from pathlib import Path

from devgw_environment.contract import Environment, find_program
from devgw_environment.open_hosts import proxy_variables

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
DEFAULTS_VARIABLE = "DEVGW_SESSION_DEFAULTS"
"""What the environment itself has of a person's own variables, as `NAME=value` words.

sshd knows no default: SetEnv, and its own TZ, win over what a client sends. The start-up files of the image's shells
set those that are missing.
"""
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9_.@:/+,=-]*")  # one word for the shell that splits them


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
    inherited = inherited_variables()
    defaults = {name: value for name, value in inherited.items() if is_personal(name)}
    return {
        "PATH": environment.search_path,
        **environment.tool_variables,
        **proxy_variables(environment),
        **{name: value for name, value in inherited.items() if name not in defaults},
        DEFAULTS_VARIABLE: " ".join(
            f"{name}={value}" for name, value in defaults.items() if _PLAIN_VALUE.fullmatch(value)
        ),
    }


def inherited_variables() -> dict[str, str]:
    """Variables of the image and of the engine that sessions take over."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in SET_BY_THE_SESSION and name != DEFAULTS_VARIABLE and name.isidentifier() and is_quotable(value)
    }


def sshd_variables() -> dict[str, str]:
    """Variables of sshd itself: without those that it would hand on over the client's."""
    return {name: value for name, value in os.environ.items() if not is_personal(name)}


def is_personal(name: str) -> bool:
    """Whether a variable is a person's own: SetEnv would win over what their client sends (sshd_config(5))."""
    return name in {"LANG", "LANGUAGE", "TZ", "COLORTERM", "NO_COLOR"} or name.startswith("LC_")


def is_quotable(value: str) -> bool:
    """Whether sshd's parser can carry the value inside double quotes (it has no escape for these on every version)."""
    return not any(character in value for character in '"\\\n\r')


def quote_variables(variables: dict[str, str]) -> str:
    """The argument of SetEnv: `"NAME=value"` words (sshd_config(5))."""
    return " ".join(f'"{name}={value}"' for name, value in variables.items())
