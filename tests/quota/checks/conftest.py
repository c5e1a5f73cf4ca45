"""What the checks in the guest share: a site on each file system, and acts of an ordinary user."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.environments.disks import Disks
from gateway.environments.layout import Layout
from gateway.environments.quota_disks import QuotaDisks
from gateway.model import EnvironmentRef
from gateway.removal import remove_tree
from gateway.store.database import Database
from gateway.store.projects import ProjectTable

UID = 200_001
MIB = 2**20
ALICE, BOB = EnvironmentRef.parse("alice"), EnvironmentRef.parse("bob")


class Site:
    """A gateway's state directory on a file system with project quotas that are on."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        state_dir.mkdir(exist_ok=True)
        self.kind = state_dir.parts[2]
        self.open_store("devgw.db")

    def open_store(self, name: str) -> None:
        """Begin anew, as another process, with the store of this name."""
        self.numbers = ProjectTable(Database(f"sqlite:////tmp/{self.state_dir.name}-{self.kind}-{name}"))
        self.quotas = QuotaDisks(self.state_dir, self.numbers)
        self.disks = Disks(self.state_dir, quotas=self.quotas)

    def volumes(self, ref: EnvironmentRef = ALICE) -> Path:
        """Return the volumes as they are when an environment starts."""
        layout = Layout.of(self.state_dir, ref)
        layout.make(UID, UID)
        return layout.volumes

    def made(self, ref: EnvironmentRef = ALICE, mebibytes: int = 64) -> Path:
        """Return the home of an environment with a disk."""
        self.disks.prepare(ref, mebibytes * MIB)
        return self.volumes(ref) / "home"


@pytest.fixture(params=["ext4", "xfs"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    place = Path("/data", request.param, request.node.originalname[-40:])
    yield Site(place)
    remove_tree(place)


def as_user(act: Callable[[], object], uid: int = UID) -> object:
    """Do something as an ordinary user in a process of its own; return what it returned, or its error's number."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        result: object = None
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            result = act()
        except OSError as exc:
            result = exc.errno
        finally:
            os.write(write, json.dumps(result).encode())
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read, "rb") as pipe:
        return json.loads(pipe.read())


def fill(file: Path) -> None:
    """Write until nothing more goes in. Raises: OSError."""
    with file.open("wb", buffering=0) as out:
        while True:
            out.write(b"\1" * MIB)
            os.fsync(out.fileno())
