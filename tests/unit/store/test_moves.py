"""Rows of moves on every database: a step is done once, on the move and on its user together, or not at all."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.errors import ConflictError, MoveError, NotFoundError
from gateway.model import Egress, Environment, EnvironmentRef, EnvironmentState, Limits, PublicKey, UserName
from gateway.store.database import Database
from gateway.store.environments import EnvironmentTable
from gateway.store.moves import Move, MoveTable
from gateway.store.moving import Belongings, forget, history_of, leave, place, reserve
from gateway.store.users import Users

ALICE, REF = UserName("alice"), EnvironmentRef.parse("alice")
KEY = PublicKey("SHA256:x", "ssh-ed25519", 256, "ssh-ed25519 AAAA")  # type: ignore[arg-type]
NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
HISTORY: dict[str, list[dict[str, Any]]] = {
    "past_leases": [
        {"gpu_uuid": "GPU-1", "name": "main", "leased_at": NOW.isoformat(), "ended_at": NOW.isoformat()},
    ],
    "usage_samples": [
        {
            "gpu_uuid": "GPU-1", "name": "main", "hour": NOW.isoformat(), "observed_seconds": 1.5, "busy_seconds": 0.5,
            "memory_peak_bytes": 2**40,
        },
    ],
    "load_samples": [],
}  # fmt: skip


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url)
    yield made
    made.close()


def row(state: EnvironmentState = EnvironmentState.STOPPED, gpus: str = "0") -> Environment:
    limits = Limits(2**40, 1.5, 64, 2**39)
    return Environment(REF, state, "docker", "image", limits, gpus, (), (), Egress.NONE, NOW, should_run=False)


def arriving(move_id: str = "a" * 32) -> Move:
    return Move(move_id, "target", ALICE, "gpu1", "held", "why", "root", NOW, {"more": [1, "two"]})


def test_a_move_reads_back_as_it_was_written(database: Database) -> None:
    reserve(database, arriving(), [row()], 1000, "not here yet")
    found = MoveTable(database).require("a" * 32)
    assert found == Move(
        "a" * 32, "target", ALICE, "gpu1", "held", "why", "root", NOW, {"more": [1, "two"], "is_new": True}
    )
    assert MoveTable(database).going_on(ALICE) == found
    user = Users(database).require(ALICE)
    assert (user.uid, user.move, user.closed_because) == (1000, "a" * 32, "not here yet")
    with pytest.raises(NotFoundError):
        MoveTable(database).require("b" * 32)


def test_a_step_is_done_by_one_process(database: Database) -> None:
    """Whoever still believes the step before is refused, and changes neither the move nor the door."""
    reserve(database, arriving(), [], 1000, "not here yet")
    moves = MoveTable(database)
    known = moves.require("a" * 32)
    moves.advance(known, "reserved")
    with pytest.raises(ConflictError):
        moves.advance(known, "arrived", closed_because="", is_over=True)
    assert moves.require("a" * 32).step == "reserved"
    assert Users(database).require(ALICE).closed_because == "not here yet"


def test_a_user_has_one_move_at_a_time(database: Database) -> None:
    Users(database).ensure(ALICE, uid_start=1000)
    moves = MoveTable(database)
    moves.begin(Move("c" * 32, "source", ALICE, "gpu2", "begun"))
    with pytest.raises(ConflictError) as refused:
        moves.begin(Move("d" * 32, "source", ALICE, "gpu3", "begun"))
    assert refused.value.code == "move.going-on"
    assert moves.get("d" * 32) is None
    with pytest.raises(ConflictError):
        Users(database).require_settled(ALICE)


def test_a_name_that_is_somebodys_is_not_kept_for_another(database: Database) -> None:
    """Also where they came to be known between the question and the keeping."""
    Users(database).ensure(ALICE, uid_start=1000)
    with pytest.raises(ConflictError) as refused:
        reserve(database, arriving(), [row()], 1000, "why")
    assert refused.value.code == "user.exists"
    assert (MoveTable(database).get("a" * 32), EnvironmentTable(database).all(ALICE)) == (None, [])


def test_what_arrives_is_there_once_and_whole(database: Database) -> None:
    reserve(database, arriving(), [row()], 1000, "why")
    belongings = Belongings((KEY,), 12.5, HISTORY, disabled=True)
    placed = place(database, MoveTable(database).require("a" * 32), [row(gpus="2")], belongings, {"records": []})
    assert placed.step == "placed"
    assert history_of(database, ALICE) == (12.5, HISTORY)
    assert [one.gpu_request for one in EnvironmentTable(database).all(ALICE)] == ["2"]
    assert [one.fingerprint for one in Users(database).keys(ALICE)] == [KEY.fingerprint]
    assert Users(database).require(ALICE).disabled
    with pytest.raises(ConflictError):
        place(database, arriving(), [], belongings, {})


def test_a_row_that_cannot_be_read_places_nothing(database: Database) -> None:
    reserve(database, arriving(), [row()], 1000, "why")
    broken = {"past_leases": [HISTORY["past_leases"][0] | {"leased_at": "yesterday"}]}
    with pytest.raises(MoveError):
        place(database, MoveTable(database).require("a" * 32), [row()], Belongings((KEY,), None, broken), {})
    assert (MoveTable(database).require("a" * 32).step, Users(database).keys(ALICE)) == ("held", [])


def test_who_does_not_come_is_forgotten_and_who_left_is_remembered(database: Database) -> None:
    reserve(database, arriving(), [row()], 1000, "why")
    forget(database, MoveTable(database).require("a" * 32), is_new=True)
    assert (Users(database).get(ALICE), MoveTable(database).require("a" * 32).step) == (None, "aborted")
    Users(database).ensure(ALICE, uid_start=1000)
    EnvironmentTable(database).add(row())
    moves = MoveTable(database)
    away = moves.begin(Move("e" * 32, "source", ALICE, "gpu2", "begun"))
    away = moves.advance(away, "moved", closed_because="you are on gpu2")
    leave(database, away, [REF], {"kept": "/moved"})
    user = Users(database).require(ALICE)
    assert (user.move, user.closed_because, EnvironmentTable(database).all(ALICE)) == ("", "you are on gpu2", [])
    last = moves.last_away(ALICE)
    assert last is not None
    assert (last.step, last.detail) == ("done", {"kept": "/moved"})
    back = arriving("f" * 32)
    reserve(database, back, [row()], 1000, "why")
    assert Users(database).require(ALICE).closed_because == "you are on gpu2"
    forget(database, moves.require("f" * 32), is_new=False)
    assert Users(database).require(ALICE).closed_because == "you are on gpu2"


def test_an_older_version_does_not_let_in_who_was_moved_and_keeps_everybodys_keys(database: Database) -> None:
    """It knows nothing of moves, so they are disabled; a table made anew would have lost the keys."""
    users = Users(database)
    for name in ("alice", "bob"):
        users.ensure(UserName(name), uid_start=1000)
        users.add_key(UserName(name), KEY)
    moves = MoveTable(database)
    moves.advance(moves.begin(Move("e" * 32, "source", ALICE, "gpu2", "begun")), "moved", closed_because="elsewhere")
    while database.downgrade()[1] >= "0013":
        continue
    database.migrate()
    assert [len(users.keys(name)) for name in ("alice", "bob")] == [1, 1]
    assert [users.require(name).disabled for name in ("alice", "bob")] == [True, False]
