"""The room that is set aside: made at the start, made again, and said when it is gone and back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.audit.journal import Journal
from gateway.audit.read import stream
from gateway.background.disk_reserve import DiskReserve
from gateway.disk import Ballast
from gateway.errors import StoreError
from gateway.model import Actor
from gateway.operations.recorded import Recorded
from tests.support.gateway_process import poll


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal")
    yield journal
    journal.close()


def codes(tmp_path: Path) -> list[str]:
    return [record.code for record in stream(tmp_path / "journal") if record.code.startswith("disk.")]


@pytest.mark.emits("disk.filled", "disk.freed")
def test_a_full_disk_is_said_once_and_so_is_its_end(tmp_path: Path, journal: Journal) -> None:
    answers = iter([True, False, False, True, True])
    reserve = DiskReserve(Ballast(tmp_path / "reserve", 4096), lambda: next(answers), journal)
    for _ in range(5):
        reserve.look()
    assert codes(tmp_path) == ["disk.filled", "disk.freed"]


def test_the_reserve_is_made_again_by_itself(tmp_path: Path, journal: Journal) -> None:
    """Also after a look that failed."""
    failures = iter([StoreError("store.unusable", "busy")])

    def preallocate() -> bool:
        for failure in failures:
            raise failure
        return True

    ballast = Ballast(tmp_path / "reserve", 4096)
    reserve = DiskReserve(ballast, preallocate, journal, look_seconds=0.01)
    reserve.begin()
    poll((tmp_path / "reserve").exists, "the reserve")
    (tmp_path / "reserve").unlink()
    poll((tmp_path / "reserve").exists, "the reserve made again")
    reserve.end()


@pytest.mark.parametrize(
    ("code", "makes_room"),
    [("user.disabled", True), ("key.removed", True), ("environment.stopped", True), ("environment.deleted", True),
     ("session.killed", True), ("environment.created", False), ("key.added", False), ("user.enabled", False)],
)  # fmt: skip
def test_what_shuts_out_or_frees_may_use_the_room_of_administrators(
    journal: Journal, code: str, makes_room: bool
) -> None:
    given_up: list[bool] = []
    recorded = Recorded(journal, Actor("admin", "root"), lambda: given_up.append(True))
    with recorded.act(code, user="alice"):
        pass
    assert given_up == [True] * makes_room
