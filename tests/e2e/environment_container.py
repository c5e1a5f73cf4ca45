"""One environment container as the contract describes it, started without a gateway: the image alone is under test."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bcrypt
import docker

from tests.support.host_resources import next_uid

UID = next_uid()
USER = "alice"
VOLUMES = ("workspace", "checkpoints", "logs")


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Poll until the condition holds and return its value; fail the test when time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds} s")


def make_key(path: Path) -> None:
    """Make an Ed25519 key pair without a passphrase."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True, timeout=60)


@dataclass
class EnvironmentContainer:
    """An environment, its host folders, and a client that holds a certificate for it."""

    folder: Path
    image: str
    client: docker.APIClient
    container: str = ""

    def lay_out(self) -> None:
        """Make the host's side of the contract: folders, keys, accounts, password."""
        for name in ("run", "env", "home", *VOLUMES):
            (self.folder / name).mkdir(mode=0o755)
            os.chown(self.folder / name, UID, UID)
        make_key(self.folder / "ca")
        make_key(self.folder / "id")
        make_key(self.folder / "env" / "ssh_host_ed25519_key")
        os.chown(self.folder / "env" / "ssh_host_ed25519_key", UID, UID)
        shutil.copy(self.folder / "ca.pub", self.folder / "env" / "ssh_user_ca.pub")
        self.sign(USER)
        self.set_password("first secret")
        record = {"version": 1, "user": USER, "name": "main", "uid": UID, "gpus": []}
        (self.folder / "env" / "environment.json").write_text(json.dumps(record))
        root, user = "root:x:0:0:root:/:/usr/sbin/nologin", f"{USER}:x:{UID}:{UID}::/home/{USER}:/bin/bash"
        (self.folder / "passwd").write_text(f"{root}\n{user}\n")
        (self.folder / "group").write_text(f"root:x:0:\n{USER}:x:{UID}:\n")

    def sign(self, principal: str) -> None:
        """Give the client a certificate for a principal, valid for an hour."""
        command = ["ssh-keygen", "-q", "-s", self.folder / "ca", "-I", "test", "-n", principal, "-V", "-1m:+60m"]
        subprocess.run([*command, self.folder / "id.pub"], check=True, timeout=60)

    def set_password(self, password: str) -> None:
        """Replace the hash the way the gateway does: a new file, renamed over the old."""
        draft = self.folder / "env" / ".notebook_password"
        draft.write_text(bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode() + "\n")
        os.chown(draft, UID, UID)
        draft.chmod(0o600)
        draft.rename(self.folder / "env" / "notebook_password")

    def start(self, *, gpus: tuple[str, ...] = ()) -> None:
        """Start the container with the hardening that every environment gets."""
        binds = [
            f"{self.folder}/run:/run/devgw",
            f"{self.folder}/env:/etc/devgw/env:ro",
            f"{self.folder}/home:/home/{USER}",
            f"{self.folder}/passwd:/etc/passwd:ro",
            f"{self.folder}/group:/etc/group:ro",
            *(f"{self.folder}/{name}:/{name}" for name in VOLUMES),
        ]
        names = [f"nvidia.com/gpu={gpu}" for gpu in gpus]
        host = self.client.create_host_config(
            binds=binds,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            network_mode="none",
            read_only=True,
            init=True,
            pids_limit=1024,
            tmpfs={"/tmp": "rw,nosuid,nodev,exec,size=1g", "/run": "rw,nosuid,nodev,size=64m"},
            device_requests=[docker.types.DeviceRequest(driver="cdi", device_ids=names)] if names else None,
        )
        variables = {"DEVGW_USER": USER, "DEVGW_ENVIRONMENT": USER, "HOME": f"/home/{USER}"}
        created = self.client.create_container(self.image, user=f"{UID}:{UID}", host_config=host, environment=variables)
        self.container = created["Id"]
        self.client.start(self.container)
        wait_for((self.folder / "run" / "ssh.sock").exists, 15, "ssh.sock")
        wait_for((self.folder / "run" / "notebook.sock").exists, 30, "notebook.sock")

    @property
    def ssh_options(self) -> list[str]:
        """Options that lead ssh, scp, sftp and rsync to the environment's socket."""
        return [
            "-i", str(self.folder / "id"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-F", "none",
            "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={self.folder}/known", "-o", "LogLevel=ERROR",
            "-o", f"ProxyCommand=socat - UNIX-CONNECT:{self.folder}/run/ssh.sock",
        ]  # fmt: skip

    def ssh(self, *command: str, user: str = USER, options: tuple[str, ...] = (), **settings: Any) -> Any:
        """Run the real ssh and return what subprocess.run returns, text decoded."""
        argv = ["ssh", *self.ssh_options, *options, f"{user}@environment", *command]
        return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, **settings)

    def logs(self) -> str:
        """What the environment has logged."""
        return self.client.logs(self.container).decode(errors="replace")

    def remove(self) -> None:
        """Remove the container, whatever state it is in."""
        if self.container:
            self.client.remove_container(self.container, force=True, v=True)
