"""Where things are in an environment: the contract with the gateway, read once from the process's surroundings.

`docs/reference/environment-contract.md` is the text of this contract; both sides are tested against it.
"""

import os
import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path

DEFAULT_PATH = "/opt/devgw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Environment:
    """One environment as its init process sees it.

    Every folder has the contract's value unless a variable names another (`DEVGW_RUN_FOLDER`, `DEVGW_CONFIG_FOLDER`,
    `DEVGW_WORKSPACE_FOLDER`), which is how a sandbox without mounts, and a test, runs the same code.
    """

    user: str
    home: Path
    shell: str
    run_folder: Path
    config_folder: Path
    stop_grace_seconds: float

    @classmethod
    def from_process(cls) -> "Environment":
        """Read the environment from this process's user and variables."""
        account = find_account()
        return cls(
            user=os.environ.get("DEVGW_USER") or account.pw_name,
            home=Path(os.environ.get("HOME") or account.pw_dir),
            shell=account.pw_shell or "/bin/sh",
            run_folder=Path(os.environ.get("DEVGW_RUN_FOLDER", "/run/devgw")),
            config_folder=Path(os.environ.get("DEVGW_CONFIG_FOLDER", "/etc/devgw/env")),
            stop_grace_seconds=float(os.environ.get("DEVGW_STOP_GRACE_SECONDS", "4")),
        )

    @property
    def ssh_socket(self) -> Path:
        """The Unix socket on which SSH connections arrive."""
        return self.run_folder / "ssh.sock"

    @property
    def notebook_socket(self) -> Path:
        """The Unix socket on which the notebook server answers HTTP."""
        return self.run_folder / "notebook.sock"

    @property
    def ports_socket(self) -> Path:
        """The Unix socket through which a port of the loopback is reached."""
        return self.run_folder / "ports.sock"

    @property
    def egress_socket(self) -> Path:
        """The gateway's Unix socket for connections to hosts outside; absent where none is open."""
        return self.config_folder / "egress.sock"

    @property
    def user_ca(self) -> Path:
        """The public key whose certificates may log in."""
        return self.config_folder / "ssh_user_ca.pub"

    @property
    def host_key(self) -> Path:
        """The private host key of this environment, which the gateway has pinned."""
        return self.config_folder / "ssh_host_ed25519_key"

    @property
    def scratch(self) -> Path:
        """A folder of this user's own for run-time files, outside the home, which may be on a network volume."""
        return Path(os.environ.get("TMPDIR", "/tmp")) / f"devgw-{os.getuid()}"  # noqa: S108 - created 0700 and checked

    @property
    def workspace(self) -> Path:
        """Where people keep the projects they work on."""
        return Path(os.environ.get("DEVGW_WORKSPACE_FOLDER", "/workspace"))

    @property
    def search_path(self) -> str:
        """PATH of every session: the user's own programs, then the image's Python, then the system."""
        inherited = os.environ.get("PATH", DEFAULT_PATH)
        own = str(self.home / ".local" / "bin")
        return ":".join(dict.fromkeys([own, *inherited.split(":")]))

    @property
    def tool_variables(self) -> dict[str, str]:
        """Where tools keep what they compile: in the home, as /tmp may forbid execution and is gone after a stop."""
        cache = self.home / ".cache"
        return {
            "TORCHINDUCTOR_CACHE_DIR": str(cache / "torchinductor"),
            "TRITON_CACHE_DIR": str(cache / "triton"),
        }


def find_account() -> pwd.struct_passwd:
    """Look up this process's user, or say plainly that the mounted /etc/passwd does not know it."""
    try:
        return pwd.getpwuid(os.getuid())
    except KeyError:
        raise SystemExit(f"devgw-init: error: uid {os.getuid()} is not in /etc/passwd") from None


def find_program(variable: str, name: str) -> str:
    """Absolute path of a program: the variable's, else from PATH and the system's sbin (sshd insists on it)."""
    named = os.environ.get(variable) or shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if not named:
        raise SystemExit(f"devgw-init: error: {name} is not installed")
    return named
