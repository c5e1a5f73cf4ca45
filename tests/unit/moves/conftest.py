"""Two hosts for each test of moves, made quickly: their databases are copies of one, in memory where there is room."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.model import Fingerprint, PublicKey
from gateway.store.database import Database
from tests.unit.moves.two_hosts import TwoHosts, with_alice

KEY = PublicKey(Fingerprint("SHA256:" + "k" * 43), "ssh-ed25519", 256, "ssh-ed25519 AAAA", "laptop")
_MEMORY = Path("/dev/shm")


@pytest.fixture(autouse=True)
def ready_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environments answer as soon as they are started; that waiting works is tested in test_lifecycle.

    Nobody is connected who is not written down yet; that this is waited for is tested in test_moves.
    """
    monkeypatch.setattr("gateway.operations.departure._UNSEEN_SECONDS", 0.0)
    monkeypatch.setattr("gateway.environments.starting.wait_until_ready", lambda *_arguments: None)


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with empty tables."""
    file = tmp_path_factory.mktemp("tables") / "devgw.db"
    database = Database(f"sqlite:///{file}")
    database.revision()
    database.close()
    return file


@pytest.fixture
def make_hosts(tables: Path) -> Iterator[Callable[[], TwoHosts]]:
    """Return what makes two fresh hosts, with alice on the source; the ones before are closed by it."""
    root = Path(tempfile.mkdtemp(prefix="moves-", dir=_MEMORY if _MEMORY.is_dir() else None))
    made: list[TwoHosts] = []

    def make() -> TwoHosts:
        close()
        hosts = with_alice(TwoHosts(root / "hosts", tables), KEY)
        made.append(hosts)
        return hosts

    def close() -> None:
        while made:
            made.pop().close()
        shutil.rmtree(root / "hosts", ignore_errors=True)

    try:
        yield make
    finally:
        close()
        shutil.rmtree(root)


@pytest.fixture
def hosts(tables: Path, tmp_path: Path) -> Iterator[TwoHosts]:
    """Two hosts with alice on the source."""
    made = with_alice(TwoHosts(tmp_path, tables), KEY)
    yield made
    made.close()
