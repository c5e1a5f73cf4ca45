"""Moving a user to another host: what goes along, what stays, who is refused and what the two journals tell."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.errors import ConflictError, DeniedError, DevgwError, MoveError, NotFoundError, UsageError
from gateway.model import EnvironmentRef, EnvironmentState, GpuUuid, Limits, UserName
from gateway.moves.description import Description, parse
from gateway.operations.arrival import roles_of
from gateway.operations.departure import MoveOrder
from gateway.store.environments import EnvironmentTable
from gateway.store.leases import LeaseTable
from gateway.store.load import LoadSample, LoadTable
from gateway.store.moving import CARRIED, LEFT_BEHIND, history_of
from gateway.store.schema import METADATA
from gateway.store.usage import Sample, UsageTable
from tests.fakes.engine import Crash
from tests.unit.moves.conftest import KEY
from tests.unit.moves.two_hosts import ALICE, MAIN, POLICY, PROJ, GatewayHost, TwoHosts

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
GPU = GpuUuid("GPU-1")


def test_every_table_with_users_in_it_goes_along_or_stays_by_name() -> None:
    """One that is added later fails here, until somebody has decided."""
    with_users = {
        table.name
        for table in METADATA.sorted_tables
        if "user" in table.c
        or table.name == "users"
        or any(key.column.table.name == "users" for key in table.foreign_keys)
    }
    assert with_users == CARRIED | set(LEFT_BEHIND)
    assert not CARRIED & set(LEFT_BEHIND)


def use_gpus(host: GatewayHost) -> None:
    """Have alice's use of GPUs and processors on record."""
    leases = LeaseTable(host.app.database)
    leases.take(MAIN, [GPU], NOW - timedelta(hours=4))
    leases.release(MAIN, NOW)
    UsageTable(host.app.database).add([Sample(GPU, MAIN, NOW, 3600, 1800, 2**30)])
    LoadTable(host.app.database).add([LoadSample(MAIN, NOW, 3600, 900, 2**20)])


@pytest.mark.emits("move.begun", "move.closed", "move.completed")
def test_keys_settings_password_files_and_history_go_along(hosts: TwoHosts) -> None:
    """All of it, byte for byte, and nothing is different but the engine and the uid."""
    source, target = hosts.source, hosts.target
    use_gpus(source)
    EnvironmentTable(source.app.database).set_disk(PROJ, 2**30)
    before, history = source.app.table.all(ALICE), history_of(source.app.database, ALICE)
    keys, password = source.app.users.keys(ALICE), source.app.environments.files.password_hash(MAIN)
    hosts.move()
    kept = {"state": EnvironmentState.STOPPED, "should_run": False, "image_digest": "", "detail": ""}
    assert target.app.table.all(ALICE) == [replace(one, **kept) for one in before]
    assert target.app.users.keys(ALICE) == keys
    assert history_of(target.app.database, ALICE) == history
    assert history[0] is not None
    assert [len(rows) for rows in history[1].values()] == [1, 1, 1]
    assert target.app.environments.files.password_hash(MAIN) == password
    assert target.app.users.require(ALICE).uid == 300_000
    file = target.home().joinpath("thesis.tex")
    assert (file.read_text(), file.stat().st_uid) == ("chapter 1", target.app.environments.files.owner(MAIN)[0])


def test_both_journals_tell_who_why_from_where_and_to_where_with_one_id(hosts: TwoHosts) -> None:
    moved = hosts.move()
    told = {
        host: [one for one in host.records() if one.code.startswith("move.")] for host in (hosts.source, hosts.target)
    }
    assert [one.code for one in told[hosts.source]] == ["move.begun", "move.closed", "move.completed"]
    assert [one.code for one in told[hosts.target]] == ["move.begun", "move.completed"]
    for records in told.values():
        for one in records:
            assert (one.detail["move"], one.detail["user"], one.detail["why"]) == (
                moved.move.id,
                "alice",
                "gpu1 is retired",
            )
            assert one.detail["by"]
    assert {one.detail["other"] for one in told[hosts.source]} == {"root@target"}
    assert {one.detail["other"] for one in told[hosts.target]} == {"source.example.org"}
    codes = [one.code for one in hosts.target.records()]
    assert [code for code in codes if code in {"user.created", "key.added", "environment.created"}] == [
        "user.created", "key.added", "environment.created", "environment.created",
    ]  # fmt: skip


def test_what_was_here_is_kept_for_administrators_alone(hosts: TwoHosts) -> None:
    kept = Path(hosts.move().kept)
    about = json.loads((kept / "user.json").read_text())
    assert about["move"]["to"] == "root@target"
    assert [one["ref"]["name"] for one in about["environments"]] == ["main", "proj"]
    assert about["keys"][0]["fingerprint"] == KEY.fingerprint
    assert (kept / "volumes" / "proj" / "home" / "data").read_text() == "1 2 3"
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o700, 0o700)
    assert not (hosts.source.settings.state_dir / "environments" / "alice").exists()


def test_a_user_who_is_disabled_stays_so(hosts: TwoHosts) -> None:
    hosts.source.app.administration.users.disable(ALICE)
    hosts.move()
    assert hosts.target.app.users.require(ALICE).disabled
    assert not hosts.target.is_open()


def test_who_was_moved_away_can_come_back(hosts: TwoHosts) -> None:
    """With the uid, the files of meanwhile and all history, and without the key that was removed there."""
    use_gpus(hosts.source)
    uid, history = hosts.source.app.users.require(ALICE).uid, history_of(hosts.source.app.database, ALICE)
    hosts.move()
    hosts.target.home().joinpath("thesis.tex").write_text("chapter 2")
    back = hosts.departures(hosts.target, hosts.source)
    back.run(MoveOrder(ALICE, "root@source"))
    found = hosts.source.app.users.require(ALICE)
    assert (found.uid, found.closed_because, found.move) == (uid, "", "")
    assert hosts.source.home().joinpath("thesis.tex").read_text() == "chapter 2"
    assert history_of(hosts.source.app.database, ALICE) == history
    assert (hosts.source.is_open(), hosts.target.is_open()) == (True, False)


def test_a_way_back_that_is_given_up_leaves_the_hint_where_they_are(hosts: TwoHosts) -> None:
    hosts.move()
    hint = hosts.source.app.users.require(ALICE).closed_because
    back = hosts.departures(hosts.target, hosts.source)
    stop_at(hosts.target, "copy/done")
    with pytest.raises(Crash):
        back.run(MoveOrder(ALICE, "root@source"))
    go_on(hosts.target)
    hosts.departures(hosts.target, hosts.source).abort(MoveOrder(ALICE))
    assert hosts.source.app.users.require(ALICE).closed_because == hint
    assert hosts.target.is_open()


def test_changes_during_the_first_copy_go_along(hosts: TwoHosts) -> None:
    """A key that is taken away, a password that is new, files that are written: the second copy and the last word."""
    other = replace(KEY, fingerprint="SHA256:" + "o" * 43)
    hosts.source.app.users.add_key(ALICE, other)
    stop_at(hosts.source, "copy/done")
    with pytest.raises(Crash):
        hosts.move()
    go_on(hosts.source)
    hosts.source.home().joinpath("thesis.tex").write_text("chapter 3")
    hosts.source.app.administration.keys.remove(ALICE, KEY.fingerprint)
    hosts.move()
    assert [one.fingerprint for one in hosts.target.app.users.keys(ALICE)] == [other.fingerprint]
    assert hosts.target.home().joinpath("thesis.tex").read_text() == "chapter 3"


def stop_at(host: GatewayHost, step: str) -> None:
    def on_step(now: str) -> None:
        if now == step:
            raise Crash

    host.at_step = on_step


def go_on(host: GatewayHost) -> None:
    host.at_step = lambda _step: None
    host.revive()


@pytest.fixture
def half_way(hosts: TwoHosts) -> TwoHosts:
    """Alice's door is shut, her environments are stopped, and she is not there yet."""
    stop_at(hosts.source, "activate")
    with pytest.raises(Crash):
        hosts.move()
    go_on(hosts.source)
    return hosts


ACTS: dict[str, Callable[[GatewayHost], object]] = {
    "create": lambda host: host.app.administration.environments.create(order_like(host)),
    "start": lambda host: host.app.administration.environments.start(MAIN),
    "wake": lambda host: host.app.environments.ensure_running(MAIN),
    "restart": lambda host: host.app.administration.environments.remake(MAIN, "why"),
    "delete": lambda host: host.app.administration.environments.delete(MAIN, force=True),
    "passwd": lambda host: host.app.administration.environments.set_password(MAIN, "secret"),
    "grow": lambda host: host.app.administration.environments.grow_disk(MAIN, 2**40),
    "rename": lambda host: host.app.administration.names.rename_user(ALICE, UserName("alicia")),
    "rename one": lambda host: host.app.administration.names.rename_environment(MAIN, EnvironmentRef.parse("alice+x")),
    "user delete": lambda host: host.app.administration.removal.delete(ALICE, archive_at=None, purge=True),
}


def order_like(host: GatewayHost):
    from gateway.operations.environments import CreateOrder

    return CreateOrder(EnvironmentRef.parse("alice+new"), "devgw/env:cpu", Limits(2**30, 1, 64, 2**29), bcrypt_hash=str)


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("side", ["source", "target"])
def test_nothing_of_a_user_who_is_being_moved_is_made_started_or_removed(
    half_way: TwoHosts, act: str, side: str
) -> None:
    """On either host; and the move goes on as if nobody had tried."""
    with pytest.raises(ConflictError) as refused:
        ACTS[act](getattr(half_way, side))
    assert refused.value.code in {"move.going-on", "user.closed"}
    assert refused.value.hint
    half_way.move()
    assert half_way.target.is_open()


def test_the_reconciler_starts_nothing_of_theirs(half_way: TwoHosts) -> None:
    """Also where a row says that it should run."""
    for host in (half_way.source, half_way.target):
        EnvironmentTable(host.app.database).set_state(MAIN, EnvironmentState.RUNNING, should_run=True)
        list(host.app.reconciler.run())
        assert not host.runs()


@pytest.mark.emits("move.aborted")
def test_put_back_they_work_on_as_before(half_way: TwoHosts) -> None:
    half_way.abort()
    source, target = half_way.source, half_way.target
    assert (source.is_open(), source.runs(), target.app.users.get(ALICE)) == (True, True, None)
    assert source.app.table.require(PROJ).state is EnvironmentState.STOPPED
    assert [one.code for one in source.records()][-1] == "move.aborted"
    half_way.move()
    assert target.is_open()


def test_a_target_that_is_gone_for_good_can_be_left_out_before_it_is_asked_to_open(hosts: TwoHosts) -> None:
    """And not afterwards: it may have opened its door."""
    stop_at(hosts.source, "copy/done")
    with pytest.raises(Crash):
        hosts.move()
    go_on(hosts.source)
    hosts.abort(without_target=True)
    assert hosts.source.is_open()


def test_whether_a_target_has_opened_its_door_only_it_can_say(half_way: TwoHosts) -> None:
    with pytest.raises(ConflictError) as refused:
        half_way.abort(without_target=True)
    assert refused.value.code == "move.too-late"


def test_a_target_may_give_up_by_itself_and_the_source_begins_anew(half_way: TwoHosts) -> None:
    move = half_way.target.app.administration.arrivals.all()[0]
    half_way.target.app.administration.arrivals.abort(move.id)
    with pytest.raises(MoveError) as refused:
        half_way.move()
    assert "was put back" in refused.value.message
    half_way.abort()
    half_way.move()
    assert half_way.target.is_open()


def with_files_of_a_former_alice(hosts: TwoHosts) -> None:
    hosts.target.home().mkdir(parents=True)


def with_records_of_a_former_alice(hosts: TwoHosts) -> None:
    UsageTable(hosts.target.app.database).add([Sample(GPU, MAIN, NOW, 1, 1, 1)])


def with_an_alice(hosts: TwoHosts) -> None:
    hosts.target.app.users.ensure(ALICE, uid_start=1000)


def without_the_image(hosts: TwoHosts) -> None:
    hosts.target.daemon.images.clear()


def with_a_policy_that_says_no(hosts: TwoHosts) -> None:
    policy = hosts.target.settings.config_dir / "policy.toml"
    policy.write_text(POLICY.replace("max_environments = 3", "max_environments = 1"))


def without_the_dataset(hosts: TwoHosts) -> None:
    from sqlalchemy import update

    from gateway.store.schema import ENVIRONMENTS

    with hosts.source.app.database.transaction() as connection:
        connection.execute(update(ENVIRONMENTS).values(datasets=["imagenet"]))


def without_room(hosts: TwoHosts) -> None:
    import shutil

    hosts.patch.setattr(shutil, "disk_usage", lambda _place: shutil._ntuple_diskusage(2**30, 2**30, 0))  # type: ignore[attr-defined]


REFUSED = [
    (with_an_alice, 6, "there is a user alice already"),
    (with_files_of_a_former_alice, 6, "files of somebody of that name"),
    (with_records_of_a_former_alice, 6, "used GPUs before"),
    (without_the_image, 4, "devgw/env:cpu"),
    (with_a_policy_that_says_no, 5, "roles.member.max_environments"),
    (without_the_dataset, 4, "no dataset 'imagenet'"),
    (without_room, 1, "there is room for 0B"),
]


@pytest.mark.emits("move.failed")
@pytest.mark.parametrize(("change", "code", "said"), REFUSED, ids=[row[0].__name__ for row in REFUSED])
def test_what_the_target_refuses_changes_nothing(
    hosts: TwoHosts, monkeypatch: pytest.MonkeyPatch, change: Callable[[TwoHosts], None], code: int, said: str
) -> None:
    """One line with the target's name, its hint and its exit code; she goes on working."""
    hosts.patch = monkeypatch  # type: ignore[attr-defined]
    change(hosts)
    known = hosts.target.app.users.get(ALICE)
    with pytest.raises(MoveError) as refused:
        hosts.move()
    assert (refused.value.exit_code, said in refused.value.message) == (code, True), refused.value.message
    assert refused.value.message.startswith("root@target: ")
    assert (hosts.source.is_open(), hosts.source.runs()) == (True, True)
    assert hosts.source.app.users.require(ALICE).move == ""
    assert hosts.target.app.users.get(ALICE) == known
    assert hosts.source.records()[-1].code == "move.failed"


@pytest.mark.parametrize("version", ["0.0.9", "0.1", ""])
def test_an_older_target_is_refused_before_anything_begins(hosts: TwoHosts, version: str, monkeypatch) -> None:
    monkeypatch.setattr("gateway.operations.departure.VERSION", "0.1.1")
    monkeypatch.setattr("gateway.operations.arrival.VERSION", version)
    with pytest.raises(MoveError) as refused:
        hosts.move()
    assert refused.value.code == "move.older"
    assert (hosts.source.is_open(), hosts.target.app.users.get(ALICE)) == (True, None)


HERE: list[tuple[MoveOrder, type[DevgwError], str]] = [
    (MoveOrder(UserName("carol"), "root@target"), NotFoundError, "user.not-found"),
    (MoveOrder(ALICE), UsageError, "move.bad-target"),
]


@pytest.mark.parametrize(("order", "kind", "code"), HERE)
def test_what_cannot_begin_is_one_line(hosts: TwoHosts, order: MoveOrder, kind: type[DevgwError], code: str) -> None:
    with pytest.raises(kind) as refused:
        hosts.departures().run(order)
    assert refused.value.code == code
    assert refused.value.hint


def test_two_moves_of_one_user_are_one(half_way: TwoHosts) -> None:
    """Another target is refused, another command at the same time too."""
    with pytest.raises(ConflictError) as refused:
        half_way.move("root@elsewhere")
    assert refused.value.code == "move.elsewhere"
    lock = half_way.source.app.environments.locks
    with lock.hold(EnvironmentRef(ALICE, "=move")), pytest.raises(ConflictError) as refused:  # type: ignore[arg-type]
        half_way.move()
    assert refused.value.code == "move.busy"


def test_who_is_on_another_host_is_not_moved_from_here_nor_put_back(hosts: TwoHosts) -> None:
    moved = hosts.move()
    assert hosts.move().move == moved.move  # said again, and nothing is done
    for act, code in ((lambda: hosts.move("root@elsewhere"), "user.closed"), (hosts.abort, "move.none")):
        with pytest.raises(DevgwError) as refused:
            act()
        assert refused.value.code == code
    hosts.source.app.administration.removal.delete(ALICE, archive_at=None, purge=False)
    assert hosts.source.app.users.get(ALICE) is None


def test_an_environment_that_is_half_made_is_settled_first(hosts: TwoHosts) -> None:
    EnvironmentTable(hosts.source.app.database).set_state(PROJ, EnvironmentState.CREATING)
    with pytest.raises(ConflictError) as refused:
        hosts.move()
    assert refused.value.code == "move.unsettled"


def test_files_of_a_deleted_environment_stay_with_what_is_kept(hosts: TwoHosts) -> None:
    """No environment has them, so none takes them along; the administrator is told."""
    hosts.source.app.administration.environments.delete(PROJ)
    moved = hosts.move()
    assert any("alice+proj" in note and moved.kept in note for note in moved.notes)
    assert (Path(moved.kept) / "volumes/proj/home/data").exists()


def test_another_policy_there_is_said(hosts: TwoHosts) -> None:
    policy = hosts.target.settings.config_dir / "policy.toml"
    policy.write_text(POLICY.replace("member", "guest"))
    moved = hosts.move()
    assert "the policy gives alice the roles guest there, and member here" in moved.notes
    assert roles_of(hosts.target.app.policy, ALICE) == ("guest",)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{}", b"nonsense", b'{"devgw": "1", "id": "../../etc", "user": "alice", "source": "s", "by": "b"}',
        b'{"devgw": "1", "id": "%s", "user": "a/b", "source": "s", "by": "b"}' % (b"0" * 32),
        b'{"devgw": "1", "id": "%s", "user": "alice", "source": "s", "by": "b", "more": 1}' % (b"0" * 32),
    ],
)  # fmt: skip
def test_what_is_no_description_is_refused_with_its_place(content: bytes) -> None:
    with pytest.raises(MoveError) as refused:
        parse(Description, content, "the other host")
    assert (refused.value.code, "the other host" in refused.value.message) == ("move.bad-description", True)


def test_rows_that_this_version_does_not_know_are_refused_whole(half_way: TwoHosts) -> None:
    """Nothing of a user is placed when one row cannot be; what was placed would be there for ever."""
    departures = half_way.departures()
    move = half_way.source.app.administration.departures.all()[-1]
    said = departures._said.of(move)
    for history in ({"no_such_table": [{}]}, {"past_leases": [{"gpu_uuid": "x"}]}):
        with pytest.raises(MoveError):
            half_way.target.app.administration.arrivals.activate(said.model_copy(update={"history": history}))
        assert half_way.target.app.users.keys(ALICE) == []
    half_way.move()
    assert half_way.target.is_open()


def test_a_denial_is_a_denial(hosts: TwoHosts) -> None:
    """The target's own administrator sees the policy's refusal as ever."""
    with_a_policy_that_says_no(hosts)
    said = hosts.departures()._said.of(fake_move())
    with pytest.raises(DeniedError):
        hosts.target.app.administration.arrivals.check(said)


def fake_move():
    from gateway.store.moves import Move

    return Move("0" * 32, "source", ALICE, "root@target", "begun")


def test_who_has_arrived_may_get_another_name_and_the_record_of_the_move_stays(hosts: TwoHosts) -> None:
    """What happened, happened under the old name."""
    hosts.move()
    hosts.target.app.administration.names.rename_user(ALICE, UserName("alicia"))
    assert [one.user for one in hosts.target.app.administration.arrivals.all()] == ["alice"]
    assert hosts.target.app.environments.start(EnvironmentRef.parse("alicia")).state is EnvironmentState.RUNNING


def test_whoever_came_a_moment_ago_is_told_too(hosts: TwoHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway writes down who is connected twice a second: at the first look there may be nobody yet."""
    monkeypatch.setattr("gateway.operations.departure._UNSEEN_SECONDS", 0.15)
    running = []
    answers = iter([False, True, True, False])

    def is_connected(_user: UserName) -> bool:
        running.append(hosts.source.runs())
        return next(answers)

    object.__setattr__(hosts.departures()._parts, "is_connected", is_connected)
    hosts.move()
    assert running == [True, True, True, True]


def test_whoever_is_connected_is_told_before_their_environment_ends(
    hosts: TwoHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway ends connections of a shut door by itself; the stop waits for that, and not for ever."""
    running = []
    answers = iter([True, True, False])

    def is_connected(_user: UserName) -> bool:
        running.append(hosts.source.runs())
        return next(answers)

    object.__setattr__(hosts.departures()._parts, "is_connected", is_connected)
    hosts.move()
    assert running == [True, True, True]
    monkeypatch.setattr("gateway.operations.departure._GOODBYE_SECONDS", 0.0)
    hosts.source.app.administration.removal.delete(ALICE, archive_at=None, purge=True)
    back = hosts.departures(hosts.target, hosts.source)
    object.__setattr__(back._parts, "is_connected", lambda _user: True)
    back.run(MoveOrder(ALICE, "root@source"))
    assert hosts.source.is_open()
