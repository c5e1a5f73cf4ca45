"""The promises of `Engine.dial` and `Engine.status`, which every engine keeps, the fake one included."""

import socket
import threading
import time
from pathlib import Path

import pytest

from gateway.engines.interface import Service
from gateway.errors import EngineError
from gateway.model import EnvironmentRef, Mount
from tests.contract.subject import EngineUnderTest, own

ALICE = EnvironmentRef.parse("alice")
_LATE_SECONDS = 7
"""Longer than anything on the way waits for an answer."""
_MUCH_BYTES = 12_000_000
SERVICES: tuple[Service, ...] = ("ssh", "notebook", "ports")


def refusal(subject: EngineUnderTest, service: Service = "ssh", *, as_other: bool = False) -> str:
    """Dial what must not answer; return the code."""
    with pytest.raises(EngineError) as caught:
        (subject.other if as_other else subject.engine).dial(ALICE, service)
    return caught.value.code


def make(subject: EngineUnderTest) -> None:
    subject.engine.create(subject.spec())
    subject.engine.start(ALICE)


@pytest.mark.parametrize("service", SERVICES)
def test_dial_gives_a_connected_stream_to_the_service(subject: EngineUnderTest, service: Service) -> None:
    """A plain non-blocking socket: bytes both ways, and one direction ends while the other goes on."""
    make(subject)
    with subject.serving(ALICE, service, b"hello"), subject.engine.dial(ALICE, service) as stream:
        assert (stream.type, stream.getblocking()) == (socket.SOCK_STREAM, False)
        stream.settimeout(10)
        stream.sendall(b"x" * 300_000)
        stream.shutdown(socket.SHUT_WR)
        received = b""
        while piece := stream.recv(65536):
            received += piece
    assert received == b"hello" + b"x" * 300_000


def test_who_reads_late_gets_everything(subject: EngineUnderTest) -> None:
    """More than is kept on the way, by a reader who does something else first, after the other direction has ended."""
    make(subject)
    with subject.serving(ALICE, "notebook", b"hello"), subject.engine.dial(ALICE, "notebook") as stream:
        stream.settimeout(60)
        sent = b"x" * _MUCH_BYTES

        def send() -> None:
            stream.sendall(sent)
            stream.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        time.sleep(_LATE_SECONDS)
        received = bytearray()
        while piece := stream.recv(65536):
            received += piece
        sender.join(30)
    assert len(received) == len(b"hello") + len(sent)


def test_each_dial_is_a_stream_of_its_own(subject: EngineUnderTest) -> None:
    """The end of one is not the end of another."""
    make(subject)
    with subject.serving(ALICE, "ssh", b"hello"):
        first, second = subject.engine.dial(ALICE, "ssh"), subject.engine.dial(ALICE, "ssh")
        first.close()
        with second:
            second.settimeout(10)
            assert second.recv(5) == b"hello"


def test_each_service_is_its_own(subject: EngineUnderTest) -> None:
    make(subject)
    with subject.serving(ALICE, "ssh", b"ssh!!"), subject.serving(ALICE, "notebook", b"http!"):
        for service, greeting in (("ssh", b"ssh!!"), ("notebook", b"http!")):
            with subject.engine.dial(ALICE, service) as stream:
                stream.settimeout(10)
                assert stream.recv(5) == greeting


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_that_is_not_there_yet_is_absent(subject: EngineUnderTest, service: Service) -> None:
    """The forward to other ports takes another way then, and one who waits for readiness asks again."""
    make(subject)
    assert refusal(subject, service) == "socket.absent"


def test_an_environment_that_is_not_there_has_no_service(subject: EngineUnderTest) -> None:
    assert refusal(subject) == "socket.absent"
    assert subject.engine.status(ALICE) is None


def test_a_service_that_was_there_does_not_answer(subject: EngineUnderTest) -> None:
    make(subject)
    with subject.serving(ALICE, "ssh", b""):
        pass
    assert refusal(subject) in {"socket.refused", "socket.absent"}


def test_another_gateway_cannot_dial_it(subject: EngineUnderTest) -> None:
    make(subject)
    with subject.serving(ALICE, "ssh", b"hello"):
        assert refusal(subject, as_other=True) == "socket.absent"
        assert subject.other.status(ALICE) is None


def test_a_deleted_environment_cannot_be_dialled(subject: EngineUnderTest) -> None:
    """Even while something goes on answering where it was."""
    make(subject)
    with subject.serving(ALICE, "ssh", b"hello"):
        subject.engine.delete(ALICE)
        assert refusal(subject) == "socket.absent"


def test_a_new_environment_is_not_reached_through_what_an_earlier_one_left(subject: EngineUnderTest) -> None:
    """Whatever its user put in the services' place, be it a tree of directories."""
    make(subject)
    with subject.serving(ALICE, "ssh", b"hello"):
        subject.leave(ALICE, "notebook")
        subject.engine.delete(ALICE)
        make(subject)
        assert [refusal(subject, service) for service in SERVICES] == ["socket.absent"] * 3


def test_an_environment_made_anew_elsewhere_is_dialled_where_it_is(subject: EngineUnderTest, tmp_path: Path) -> None:
    """Nobody goes on asking where the old one was."""
    make(subject)
    with subject.serving(ALICE, "ssh", b"old"), subject.engine.dial(ALICE, "ssh"):
        subject.engine.delete(ALICE)
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        own(elsewhere)
        subject.engine.create(subject.spec(mounts=(Mount(elsewhere, "/run/devgw"),)))
        subject.engine.start(ALICE)
        assert refusal(subject) == "socket.absent"


def test_the_status_is_what_the_environment_wrote(subject: EngineUnderTest) -> None:
    """Unread: its user may have written anything."""
    make(subject)
    assert subject.engine.status(ALICE) is None
    subject.report(ALICE, b'{"at": ')
    assert subject.engine.status(ALICE) == b'{"at": '
    subject.report(ALICE, b"\xff" * 9000)
    assert subject.engine.status(ALICE) == b"\xff" * 4096
