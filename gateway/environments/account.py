"""The files under /etc/devgw/env: who the environment is and whom it trusts. Written whole and swapped in by rename."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.auth.authority import make_host_key
from gateway.environments.layout import Layout, disk_error
from gateway.environments.shared_volumes import SharedDirectory
from gateway.model import EnvironmentRef, GpuUuid

HOST_KEY = "ssh_host_ed25519_key"
PASSWORD = "notebook_password"  # noqa: S105 - the name of a file, which holds a bcrypt hash


@dataclass(frozen=True, slots=True)
class EnvironmentAccount:
    """What an environment is told about itself.

    `ca_line` is the public half of the gateway's user CA; `notebook_port` means the notebook in a forward.
    """

    ref: EnvironmentRef
    uid: int
    gid: int
    gpus: Sequence[GpuUuid]
    ca_line: str
    notebook_port: int
    shared: Sequence[SharedDirectory] = ()


def write_account(layout: Layout, account: EnvironmentAccount) -> None:
    """Write every file but the password; the host key is made once and kept. Raises: StoreError."""
    config, uid, gid = layout.config, account.uid, account.gid
    about = {
        "version": 1,
        "user": account.ref.user,
        "name": account.ref.name,
        "uid": uid,
        "gpus": list(account.gpus),
        "notebook_port": account.notebook_port,
    }
    try:
        if not (config / HOST_KEY).exists():
            private, public = make_host_key()
            swap_in(config / f"{HOST_KEY}.pub", public.strip() + "\n", 0o444, uid, gid)
            swap_in(config / HOST_KEY, private, 0o400, uid, gid)
        swap_in(config / "ssh_user_ca.pub", account.ca_line.strip() + "\n", 0o444, uid, gid)
        swap_in(config / "environment.json", json.dumps(about) + "\n", 0o444, uid, gid)
        _keep_or_write(config / "passwd", _passwd(account), uid, gid)
        _keep_or_write(config / "group", _group(account), uid, gid)
    except OSError as exc:
        raise disk_error(exc, config) from exc


def write_password_hash(layout: Layout, bcrypt_hash: str, uid: int, gid: int) -> None:
    """Swap in another notebook password; the running notebook sees it at the next login. Raises: StoreError."""
    try:
        swap_in(layout.config / PASSWORD, bcrypt_hash + "\n", 0o400, uid, gid)
    except OSError as exc:
        raise disk_error(exc, layout.config) from exc


def read_password_hash(layout: Layout) -> str:
    """Return the hash of the notebook's password. Raises: StoreError."""
    try:
        return (layout.config / PASSWORD).read_text().strip()
    except OSError as exc:
        raise disk_error(exc, layout.config) from exc


def host_key_line(layout: Layout) -> str:
    """Return the pinned public host key, type and base64."""
    return (layout.config / f"{HOST_KEY}.pub").read_text().strip()


def _passwd(account: EnvironmentAccount) -> str:
    user, uid, gid = account.ref.user, account.uid, account.gid
    return (
        "root:x:0:0:no login:/nonexistent:/usr/sbin/nologin\n"
        f"{user}:x:{uid}:{gid}::/home/{user}:/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    )


def _group(account: EnvironmentAccount) -> str:
    # no group tty: sshd would give it each terminal, which a user may do only where /dev/pts is mounted for that group
    user = account.ref.user
    shared = "".join(f"shared-{one.name}:x:{one.gid}:{user}\n" for one in account.shared)
    return f"root:x:0:\n{user}:x:{account.gid}:\n{shared}nogroup:x:65534:\n"


def _keep_or_write(path: Path, text: str, uid: int, gid: int) -> None:
    # these two are mounted as files: a rename would leave a running environment with the old one
    if not path.exists() or path.read_text() != text:
        swap_in(path, text, 0o444, uid, gid)


def swap_in(path: Path, text: str, mode: int, uid: int, gid: int) -> None:
    """Put a file in place, whole and on disk, by renaming it over the old one. Raises: OSError."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if os.geteuid() == 0:
                os.fchown(file.fileno(), uid, gid)
            os.fsync(file.fileno())
        fresh.rename(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
