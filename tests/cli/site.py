"""A gateway's site in a temporary directory: the real command line and the real parts on a fake engine."""

import io
import re
import shlex
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from gateway.app.composition import App
from gateway.auth.authority import make_host_key
from gateway.cli.program import run
from gateway.config import Settings, load_settings
from gateway.doctor.doctor import Sources
from gateway.engines.interface import Engine
from gateway.gpus.deciders import Deciders
from gateway.gpus.inventory import Inventory
from gateway.gpus.node_inventory import NodeInventory
from gateway.gpus.reading import Reading
from gateway.model import EnvironmentRef, Gpu, GpuUuid, NodeName
from gateway.store.database import Database
from gateway.store.environments import EnvironmentTable
from tests.cli.audit_fixtures import (
    add_head_of_another_key,
    copy_without_last_record,
    edit_record,
    forge_pruned_copy,
    sign_nothing,
    swap_key,
    write_policies,
)
from tests.cli.connected_users import connect, end_past_connection, record_terminal
from tests.cli.doctor_fixtures import DRIVER, FixedSensors, measure, sources_at, write_spec
from tests.cli.services import AnsweringCluster, AnsweringEngine
from tests.fakes.cluster import FakeCluster
from tests.fakes.engine import FakeDaemon
from tests.fakes.image_builder import FakeImageBuilder
from tests.fakes.image_store import FakeImageStore

GPUS = tuple(
    Gpu(GpuUuid(f"GPU-00000000-0000-4000-8000-00000000000{n}"), "NVIDIA A100-SXM4-80GB", 80 * 2**30, str(n))
    for n in range(2)
)
_CONTENTS = {"profile": "cpu", "torch": "2.8.0", "python": "3.12"}
_VARYING = (
    (re.compile(r"SHA256:[A-Za-z0-9+/]{43}"), "SHA256:" + "FINGERPRINT".ljust(43, "x")),
    (re.compile(r"(?<=ssh-ed25519 )AAAA[A-Za-z0-9+/]{64}"), "PUBLICKEY"),
    (re.compile(r"\b[a-z2-9]{5}(-[a-z2-9]{5}){3}\b"), "PASSWORD"),
    (re.compile(r"cpu-[0-9a-f]{12}\b"), "cpu-DIGEST"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "DIGEST"),
    (re.compile(r"(?<=state/keys/)\w+"), "KEY"),
    (re.compile(r"reference [0-9a-z]{10}\b"), "reference REFERENCE"),
    (re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+\+00:00"), "YYYY-MM-DD hh:mm"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d\.\d+\+00:00)?"), "YYYY-MM-DD hh:mm"),
    (re.compile(r"\d{4}-\d\d-\d\d"), "YYYY-MM-DD"),
    (re.compile(r"\b[0-9]s\b"), "0s"),
    (re.compile(r"\b0\.50\d\d\b"), "0.5"),
)


class TwoGpus:
    """An inventory that is always the same."""

    def read(self) -> Reading:
        return Reading("nvml", GPUS, driver_version="570.26")


class SiteApp(App):
    """The gateway's own parts, but for the engine and the GPUs."""

    def __init__(
        self, settings: Settings, engine: AnsweringEngine, builder: FakeImageBuilder, daemon: FakeDaemon
    ) -> None:
        super().__init__(settings)
        self._fake = engine
        self._builder = builder
        self._daemon = daemon

    @cached_property
    def engine(self) -> Engine:
        return self._fake

    @cached_property
    def image_builder(self) -> FakeImageBuilder:
        return self._builder

    @cached_property
    def image_store(self) -> FakeImageStore:
        return FakeImageStore(self._daemon)

    @property
    def deciders(self) -> Deciders:
        return Deciders.of(self._fake.scheduling)

    @cached_property
    def inventory(self) -> Inventory:
        return NodeInventory(self._fake.nodes) if self.deciders.engine_places else TwoGpus()

    @cached_property
    def sensors(self) -> FixedSensors:
        return FixedSensors()

    def close(self) -> None:
        """Close the journal and the database, where a command opened them."""
        if "journal" in self.__dict__:
            self.journal.close()
        if "database" in self.__dict__:
            self.database.close()

    @property
    def doctor_sources(self) -> Sources:
        return sources_at(self.settings, super().doctor_sources, self._daemon)


@dataclass(frozen=True)
class Outcome:
    """What a command left on both streams, with what varies from run to run named."""

    stdout: str
    stderr: str
    exit_code: int
    raw: str = ""
    """Stdout as it was."""


class Site:
    """One site. `happens` takes the sentences that transcripts use for what is no command."""

    def __init__(self, directory: Path, capture: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.daemon = FakeDaemon(gpus=frozenset(gpu.uuid for gpu in GPUS), cpus=16)
        self._add_image()
        self.engine = AnsweringEngine(self.daemon)
        self.builder = FakeImageBuilder(self.daemon)
        self._capture = capture
        self._patch = patch
        _write_key_files(directory)

    def run(self, line: str) -> Outcome:
        """Run `devgw …`, `NAME=value devgw …` or `echo text | devgw …`."""
        feed, _, command = line.rpartition(" | ")
        words = shlex.split(command)
        with self._patch.context() as patch:
            while "=" in words[0]:
                patch.setenv(*words.pop(0).split("=", 1))
            given = " ".join(shlex.split(feed)[1:]) + "\n" if feed else ""
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
            self._capture.readouterr()
            made: list[SiteApp] = []
            code = run(words[1:], make_app=lambda settings: self._app(settings, made))
            for app in made:
                app.close()  # a command's process would end here
        captured = self._capture.readouterr()
        return Outcome(self._named(captured.out), self._named(captured.err), code, captured.out)

    def _app(self, settings: Settings, made: list[SiteApp]) -> SiteApp:
        made.append(SiteApp(settings, self.engine, self.builder, self.daemon))
        return made[-1]

    def happens(self, sentence: str) -> None:
        """Let something happen beside the commands."""
        match sentence.split():
            case ["the", "engine", "stops", "answering"]:
                self.daemon.is_reachable = False
            case ["the", "engine", "answers", "again"]:
                self.daemon.is_reachable = True
            case ["the", "driver", "is", "updated", "to", version, "without", "a", "reboot"]:
                (self.directory / "host/usr/lib64" / f"libcuda.so.{DRIVER}").rename(
                    self.directory / "host/usr/lib64" / f"libcuda.so.{version}"
                )
                write_spec(self.directory / "host", version)
            case ["the", "GPUs", "are", "measured", "for", minutes, "minutes"]:
                measure(self.directory / "state/devgw.db", int(minutes))
            case ["others", "may", "read", name]:
                (self.directory / name).chmod(0o644)
            case ["a", "record", "of", "the", "journal", "is", "edited"]:
                _edit_journal(self.directory / "state/journal")
            case ["the", "process", "of", handle, "ends"]:
                self.engine.end(EnvironmentRef.parse(handle), 137, "killed: out of memory")
            case ["the", "store", "forgets", handle]:
                EnvironmentTable(Database(f"sqlite:///{self.directory}/state/devgw.db")).remove(
                    EnvironmentRef.parse(handle)
                )
            case _:
                self._happens_to_nodes(sentence)

    def _happens_to_nodes(self, sentence: str) -> None:
        """What befalls machines."""
        match sentence.split():
            case ["there", "are", "two", "machines"]:
                self.daemon = FakeCluster({"node1": (GPUS[0].uuid,), "node2": (GPUS[1].uuid,)})
                self._add_image()
                self.engine = AnsweringCluster(self.daemon)
            case [node, "is", "cut", "off"]:
                self._cluster.cut(NodeName(node))
            case [node, "returns"]:
                self._cluster.heal(NodeName(node))
            case _:
                self._happens_to_records(sentence)

    def _happens_to_records(self, sentence: str) -> None:
        """What befalls policy, journal and database."""
        state = self.directory / "state"
        match sentence.split():
            case ["the", "policy", "becomes", name]:
                (self.directory / "config/policy.toml").write_text((self.directory / name).read_text())
            case ["imagenet", "is", "a", "dataset"]:
                (self.directory / "imagenet").mkdir()
                with (self.directory / "config/devgw.toml").open("a") as settings:
                    settings.write(f'[datasets.imagenet]\npath = "{self.directory}/imagenet"\n')
            case ["the", "gateway", "starts", "and", "stops"]:
                self._start_and_stop()
            case ["the", "head", "is", "kept", "as", name]:
                self._keep_head(name)
            case ["a", "copy", "of", "the", "journal", "loses", "its", "last", "record"]:
                copy_without_last_record(state / "journal", self.directory / "copy")
            case ["a", "record", "of", "the", "journal", "names", "somebody", "else"]:
                edit_record(state / "journal")
            case [name, "is", "put", "in", "place", "of", "the", "key", "of", user]:
                swap_key(state / "devgw.db", user, (self.directory / name).read_text())
            case _:
                self._happens_to_heads(sentence)

    def _happens_to_heads(self, sentence: str) -> None:
        """What befalls signed heads, and a journal behind them."""
        match sentence.split():
            case ["the", "journal", "of", name, "is", "forged", "behind", "a", "pruning"]:
                forge_pruned_copy(self.directory / "state/journal", self.directory / name)
            case ["the", "head", "of", "an", "empty", "journal", "is", "kept", "as", name]:
                sign_nothing(App(), self.directory / name)
            case ["the", "heads", one, "and", other, "lie", "in", both]:
                texts = [(self.directory / name).read_text() for name in (one, other)]
                (self.directory / both).write_text("\n".join(texts))
            case ["a", "head", "of", "another", "key", "joins", name]:
                add_head_of_another_key(self.directory / name)
            case _:
                self._happens_to_connections(sentence)

    def _happens_to_connections(self, sentence: str) -> None:
        """Who connects."""
        match sentence.split():
            case [user, "connects"]:
                connect(App().live_sessions, user)
            case ["the", "gateway", "is", "killed", "and", user, "was", "connected"]:
                connect(App().live_sessions, user, is_alive=False)
            case [administrator, "ended", "the", "connection", "of", user]:
                end_past_connection(App(), user, administrator)
            case ["the", "terminal", "of", user, "was", "recorded", "and", "showed", *words]:
                record_terminal(self.directory / "state/recordings", user, " ".join(words))
            case [count, "connections", "as", user, "from", address, "prove", "no", "key"]:
                for _ in range(int(count)):
                    App().throttle.failed(address, user)
            case _:
                raise ValueError(f"nobody knows how {sentence!r} happens")

    @property
    def _cluster(self) -> FakeCluster:
        assert isinstance(self.daemon, FakeCluster)
        return self.daemon

    def _add_image(self) -> None:
        self.daemon.add_image("devgw/env:cpu", {f"org.devgw.{name}": value for name, value in _CONTENTS.items()})

    def _start_and_stop(self) -> None:
        """Let the gateway do what it does of its own accord before and after it listens."""
        gateway = SiteApp(load_settings(), self.engine, self.builder, self.daemon)
        gateway.duties.policy_reloader.begin()
        gateway.duties.journal_maintenance.begin()
        gateway.duties.journal_maintenance.end()
        gateway.journal.close()

    def _keep_head(self, name: str) -> None:
        self._capture.readouterr()
        run(["audit", "head"])
        (self.directory / name).write_text(self._capture.readouterr().out)
        run(["audit", "head", "--verifier"])
        (self.directory / f"{name}.pub").write_text(self._capture.readouterr().out)

    def _named(self, text: str) -> str:
        text = text.replace(str(self.directory), "DIR")
        for pattern, name in _VARYING:
            text = pattern.sub(name, text)
        return text


def _write_key_files(directory: Path) -> None:
    for name in ("alice", "bob"):
        private, public = make_host_key(f"{name}@laptop")
        (directory / name).write_text(private)
        (directory / f"{name}.pub").write_text(f"{public.strip()}\n")
    both = (directory / "alice.pub").read_text() + (directory / "bob.pub").read_text()
    (directory / "two.pub").write_text(both)
    (directory / "empty.pub").write_text("\n")
    (directory / "photo.jpg").write_bytes(bytes(range(256)))
    (directory / "keys").mkdir()
    write_policies(directory)


def _edit_journal(directory: Path) -> None:
    last = max(directory.glob("segment-*.jsonl"))
    last.write_text(last.read_text().replace("alice", "carol", 1))
