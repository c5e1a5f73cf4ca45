"""Two gateways on fake engines, with real databases, journals and files; either can be killed at any of its steps.

A step is a transaction, before it and after it, a step of the engine, a question to the other host, or a rename. At
each of them it is checked that nobody could be at work on both hosts.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from gateway.audit.event import Event
from gateway.audit.read import Filter, stream
from gateway.audit.record import Record
from gateway.config import load_settings
from gateway.environments.disks import Disks
from gateway.gate import Recorder
from gateway.model import Actor, EnvironmentRef, UserName
from gateway.moves.description import Description, Reply
from gateway.operations.administration import Administration
from gateway.operations.departure import DepartureOperations, MoveOrder
from gateway.operations.environments import CreateOrder
from gateway.operations.receiving import Receiver
from gateway.operations.recorded import Recorded
from gateway.store.database import Database
from tests.cli.services import AnsweringEngine
from tests.cli.site import GPUS, SiteApp
from tests.fakes.engine import Crash, FakeDaemon
from tests.fakes.image_builder import FakeImageBuilder
from tests.fakes.move_target import CopyingReceiver, NearTarget

ALICE = UserName("alice")
MAIN, PROJ = EnvironmentRef.parse("alice"), EnvironmentRef.parse("alice+proj")
POLICY = """
version = 1
default_roles = ["member"]
[roles.member]
images = ["*"]
datasets = ["*"]
max_environments = 3
max_memory = "64GiB"
max_cpus = 64
max_gpus = 2
"""
Hook = Callable[[str], None]


class SteppedDatabase(Database):
    """A database that tells of each transaction, before it and once it is durable."""

    def __init__(self, url: str, at_step: Hook) -> None:
        super().__init__(url)
        self._at_step = at_step

    @contextmanager
    def transaction(self, *, changes_access: bool = False) -> Iterator[Connection]:
        self._at_step("transaction")
        with super().transaction(changes_access=changes_access) as connection:
            yield connection
        self._at_step("transaction/done")


class HostApp(SiteApp):
    """One gateway whose steps are told; the files of users who arrive are copied."""

    at_step: Hook

    @cached_property
    def database(self) -> Database:
        return SteppedDatabase(self.settings.database, self.at_step)

    @cached_property
    def disks(self) -> Disks:
        return Disks(self.settings.state_dir, why_not=lambda: "no disk is made in these tests")

    @cached_property
    def recorded(self) -> Recorded:
        return Recorded(_SteppedRecorder(self.journal, self.at_step), Actor("admin", "root"))

    @cached_property
    def administration(self) -> Administration:
        return _Administration(self)


class _SteppedRecorder:
    """A journal that tells of each record of an administrator's, before it and once it is durable."""

    def __init__(self, recorder: Recorder, at_step: Hook) -> None:
        self._recorder = recorder
        self._at_step = at_step

    def submit(self, event: Event) -> "Future[None]":
        self._at_step("record")
        self._recorder.submit(event).result()
        self._at_step("record/done")
        done: Future[None] = Future()
        done.set_result(None)
        return done


class _Administration(Administration):
    def _receiver(self) -> Receiver:
        return CopyingReceiver(self._site.environments, is_root=os.geteuid() == 0)


@dataclass(eq=False)
class GatewayHost:
    """A host: its directory, its engine, and the process of the moment."""

    root: Path
    tables: Path
    """A database with empty tables."""
    at_step: Hook = lambda _step: None
    daemon: FakeDaemon = field(default_factory=lambda: FakeDaemon(gpus=frozenset(gpu.uuid for gpu in GPUS), cpus=16))

    def __post_init__(self) -> None:
        self.daemon.add_image("devgw/env:cpu", {"org.devgw.profile": "cpu"})
        self.engine = AnsweringEngine(self.daemon)
        environ = {f"DEVGW_{name.upper()}_DIR": str(self.root / name) for name in ("config", "state", "run", "cache")}
        environ |= {"DEVGW_SERVER_PUBLIC_HOST": f"{self.root.name}.example.org", "DEVGW_GPUS_INVENTORY": "none"}
        environ |= {"DEVGW_ENVIRONMENTS_UID_START": str(200_000 if self.root.name == "source" else 300_000)}
        environ |= {"DEVGW_ENVIRONMENTS_IMAGE": "devgw/env:cpu"}
        (self.root / "config").mkdir(parents=True)
        (self.root / "config" / "policy.toml").write_text(POLICY)
        self.settings = load_settings(environ)
        for directory in (self.settings.state_dir, self.settings.keys_dir):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy(self.tables, self.settings.state_dir / "devgw.db")
        self.app = self._new_app()
        self.daemon.at_step = self.tell

    def revive(self) -> None:
        """A new process, after the one before was killed."""
        self.app.close()
        self.app = self._new_app()

    def _new_app(self) -> HostApp:
        app = HostApp(self.settings, self.engine, FakeImageBuilder(self.daemon), self.daemon)
        app.at_step = self.tell
        return app

    def tell(self, step: str) -> None:
        self.at_step(step)

    def is_open(self) -> bool:
        """Whether alice would be let in here."""
        user, keys = self.app.users.account(ALICE)
        return user is not None and not user.closed_because and not user.disabled and bool(keys)

    def runs(self) -> bool:
        return any(ref.user == ALICE and one.running for (_id, ref), one in self.daemon.containers.items())

    def records(self) -> list[Record]:
        return list(stream(self.settings.journal_dir, Filter()))

    def home(self, ref: EnvironmentRef = MAIN) -> Path:
        return self.settings.state_dir / "volumes" / ref.user / ref.name / "home"

    def close(self) -> None:
        self.app.close()
        self.engine.close()


class SteppedTarget(NearTarget):
    """The way there, which tells of each question."""

    def __init__(self, target: GatewayHost, at_step: Hook) -> None:
        super().__init__(lambda: target.app.administration.arrivals, target.revive)
        self._at_step = at_step

    def ask(self, question: str, description: Description) -> Reply:
        self._at_step(question)
        reply = super().ask(question, description)
        self._at_step(f"{question}/done")
        return reply

    def copy(self, directory: Path, move_id: str, environment: str, volume: str, *, may_change: bool) -> None:
        is_told = volume == "home"  # the four are alike
        if is_told:
            self._at_step("copy")
        super().copy(directory, move_id, environment, volume, may_change=may_change)
        if is_told:
            self._at_step("copy/done")


class TwoHosts:
    """A source with alice on it, and a target without her."""

    def __init__(self, root: Path, tables: Path) -> None:
        self.source, self.target = GatewayHost(root / "source", tables), GatewayHost(root / "target", tables)

    def departures(self, host: GatewayHost | None = None, other: GatewayHost | None = None) -> DepartureOperations:
        """The source's operations, as a new process has them."""
        source, target = host or self.source, other or self.target
        operations = source.app.administration.departures
        way = SteppedTarget(target, source.tell)
        object.__setattr__(operations._parts, "connect", lambda _to, _ssh, _devgw: way)
        return operations

    def move(self, to: str = "root@target") -> Any:
        return self.departures().run(MoveOrder(ALICE, to, "gpu1 is retired"))

    def abort(self, **options: bool) -> Any:
        return self.departures().abort(MoveOrder(ALICE), **options)

    def require_one_writer(self) -> None:
        """Invariant: nobody gets in on both hosts, and nothing runs on both."""
        opens = [host for host in (self.source, self.target) if host.is_open()]
        runs = [host for host in (self.source, self.target) if host.runs()]
        assert len(opens) < 2, "alice gets in on both hosts"
        assert len(runs) < 2, "alice's environments run on both hosts"
        assert not (self.target in opens and self.source in runs), "she is let in there while she is at work here"

    @contextmanager
    def killed(self, at: int, side: str) -> "Iterator[count[int]]":
        """Kill the process of one side at its step number `at`; yield the count of its steps."""
        steps = count()
        host = getattr(self, side)

        def on_step(_step: str) -> None:
            self.require_one_writer()
            if next(steps) == at:
                crash = Crash(f"{side} at step {at}")
                crash.at_target = side == "target"  # type: ignore[attr-defined]
                raise crash

        host.at_step = on_step
        try:
            yield steps
        finally:
            host.at_step = lambda _step: None

    def close(self) -> None:
        self.source.close()
        self.target.close()


def with_alice(hosts: TwoHosts, key: Any) -> TwoHosts:
    """Make alice known at the source, with two environments, of which one runs, and files in both."""
    operations = hosts.source.app.administration.environments
    chosen = hosts.source.settings.environments
    from gateway.cli.quantities import limits_from

    limits = limits_from(chosen, None, 2.0, None, None, 16.0)
    for ref, gpu in ((MAIN, "0"), (PROJ, "0")):
        order = CreateOrder(ref, "devgw/env:cpu", limits, gpu, keys=(key,), bcrypt_hash=lambda: "$2b$04$" + "h" * 53)
        operations.create(order)
    operations.stop(PROJ)
    hosts.source.home().joinpath("thesis.tex").write_text("chapter 1")
    hosts.source.home(PROJ).joinpath("data").write_text("1 2 3")
    return hosts
