"""Mallory and alice side by side on every engine that runs processes, and a program that asks the kernel directly."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.audit.verify import verify
from gateway.model import EnvironmentRef, Mount
from tests.attacks.second_user import second_user
from tests.contract.conftest import ENGINES, REAL, parameters
from tests.contract.inside import Output, Spool
from tests.contract.subject import EngineUnderTest, own, started
from tests.fuzz.gateway_under_fire import GatewayUnderFire, gateway_under_fire

ALICE, MALLORY = EnvironmentRef.parse("alice"), EnvironmentRef.parse("mallory")


@dataclass
class Neighbours:
    """Two running environments; each user has a home with a secret in it."""

    under_test: EngineUnderTest
    alice: Spool
    mallory: Spool
    attempts: Path

    def attempt(self, *arguments: str) -> Output:
        """Let mallory make one system call; the text is `done` or the kernel's answer."""
        place = self.under_test.run_directory(MALLORY) / "attempts"
        if not place.exists():
            shutil.copy(self.attempts, place)
            place.chmod(0o755)
        return self.mallory.run(f"cp /run/devgw/attempts /tmp/a && /tmp/a {' '.join(arguments)}")

    @contextmanager
    def alice_notices_nothing(self) -> Iterator[None]:
        """Check that alice's environment runs on, the same as before, and answers, can fork and can write."""
        self.alice.run("echo same >/tmp/mark")
        before = (self.under_test.directory / "home.alice" / "secret").read_text()
        yield
        assert self.under_test.engine.observe(ALICE).running
        assert self.alice.run("cat /tmp/mark; for n in 1 2 3; do sleep 0 & done; wait; echo $?").text == "same\n0\n"
        assert (
            self.alice.run("dd if=/dev/zero of=/tmp/block bs=1M count=4 2>/dev/null; wc -c </tmp/block").text.strip()
            == "4194304"
        )
        assert (self.under_test.directory / "home.alice" / "secret").read_text() == before


@pytest.fixture(scope="session")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile `attempts.c` as a program that needs no library."""
    program = tmp_path_factory.mktemp("attempts") / "attempts"
    source = Path(__file__).with_name("attempts.c")
    subprocess.run(["gcc", "-static", "-Wall", "-o", str(program), str(source)], check=True, timeout=60)
    return program


@pytest.fixture(params=parameters(REAL))
def neighbours(request: pytest.FixtureRequest, tmp_path: Path, attempts: Path) -> Iterator[Neighbours]:
    """Return two running environments on each engine in turn."""
    with ENGINES[request.param](tmp_path) as under_test:
        spools = []
        for user in ("alice", "mallory"):
            home = under_test.owned_directory(f"home.{user}")
            (home / "secret").write_text(f"{user}'s own\n")
            own(home / "secret")
            home.chmod(0o700)
            mounts = (*under_test.spec(user).mounts, Mount(home, f"/home/{user}"))
            spools.append(started(under_test, user, mounts=mounts))
        yield Neighbours(under_test, *spools, attempts)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayUnderFire]:
    """Return a gateway in a process of its own, with a log and a journal on disk."""
    with gateway_under_fire(tmp_path_factory.mktemp("target")) as gateway:
        yield gateway


@pytest.fixture
def attacked(target: GatewayUnderFire) -> Iterator[GatewayUnderFire]:
    """The same while bob works in it; afterwards he noticed nothing, the log is clean and the journal is whole."""
    with second_user(target):
        yield target
    assert target.holds_no_traceback(), target.log()
    assert verify(target.root / "journal").problem is None
