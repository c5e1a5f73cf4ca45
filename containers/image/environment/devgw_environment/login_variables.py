"""The variables of a login shell: what /etc/profile and the user's own start-up files make of those given."""

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from devgw_environment.eventlog import log_event

LOGIN_SECONDS = 10.0
"""After this long, start-up files that hang or wait for somebody are left alone."""
OF_THE_SHELL = frozenset({"SHLVL", "PWD", "OLDPWD", "_"})
_MARK = b"\0devgw-variables\0"  # start-up files may print what they like before it


def read_login_variables(shell: str, home: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """Return `variables` as a login shell leaves them; as they are where it fails or does not end."""
    output = _run(shell, home, variables)
    _, mark, told = output.rpartition(_MARK)
    if not mark:
        return dict(variables)
    pairs = (os.fsdecode(entry).partition("=") for entry in told.split(b"\0") if b"=" in entry)
    found = {name: value for name, _, value in pairs if name not in OF_THE_SHELL}
    return {**{name: variables[name] for name in OF_THE_SHELL if name in variables}, **found}


def _run(shell: str, home: Path, variables: Mapping[str, str]) -> bytes:
    command = r"printf '\000devgw-variables\000'; exec env -0"
    try:
        with subprocess.Popen(
            [shell, "-l", "-c", command],
            cwd=home,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            try:
                return process.communicate(timeout=LOGIN_SECONDS)[0]
            except subprocess.TimeoutExpired:
                log_event("login-files.slow", seconds=LOGIN_SECONDS)
                os.killpg(process.pid, signal.SIGKILL)
                return b""
    except OSError as error:
        log_event("login-files.failed", reason=str(error))
        return b""
