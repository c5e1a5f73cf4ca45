"""Waits until an environment's two services answer, and says why when they do not."""

import socket
import time
from collections.abc import Callable
from functools import partial

from gateway.engines.interface import Engine, Service
from gateway.engines.nodes import unreachable
from gateway.errors import EngineError, TimedOutError
from gateway.model import EnvironmentRef

_POLL_SECONDS = 0.02
_LOOK_SECONDS = 0.5  # between questions to the engine, which are dearer than knocking
_ANSWER_TIMEOUT_SECONDS = 5.0
_QUESTIONS: dict[Service, tuple[bytes, bytes]] = {
    "ssh": (b"", b"SSH-2.0-"),
    "notebook": (b"GET /login HTTP/1.0\r\nHost: localhost\r\n\r\n", b"HTTP/1."),
}


def wait_until_ready(
    engine: Engine,
    ref: EnvironmentRef,
    timeout_seconds: float,
    progress: Callable[[str], None],
) -> None:
    """Block until both services answer.

    Raises:
        EngineError: `environment.died`, with the last line the environment wrote.
        TimedOutError: `environment.not-ready`.
    """
    deadline = time.monotonic() + timeout_seconds
    for name in _QUESTIONS:
        progress(f"waiting for {name}")
        look_at = time.monotonic() + _LOOK_SECONDS
        while not answers(partial(engine.dial, ref, name), name):
            if time.monotonic() > look_at:
                _require_alive(engine, ref)
                look_at = time.monotonic() + _LOOK_SECONDS
            if time.monotonic() > deadline:
                raise TimedOutError(
                    "environment.not-ready",
                    f"{ref}: {name} did not answer within {timeout_seconds:.0f} s{_last_words(engine, ref)}",
                    "raise environments.start_timeout, or look at the image's entrypoint",
                )
            time.sleep(_POLL_SECONDS)


def answers(dial: Callable[[], socket.socket], service: Service) -> bool:
    """Say whether a service greets as it should."""
    question, greeting = _QUESTIONS[service]
    try:
        with dial() as connection:
            connection.settimeout(_ANSWER_TIMEOUT_SECONDS)
            connection.sendall(question)
            return _starts_with(connection, greeting)
    except (EngineError, OSError):
        return False


def _starts_with(connection: socket.socket, greeting: bytes) -> bool:
    received = b""
    while len(received) < len(greeting):
        chunk = connection.recv(64)
        if not chunk:
            return False
        received += chunk
    return received.startswith(greeting)


def _require_alive(engine: Engine, ref: EnvironmentRef) -> None:
    observed = engine.observe(ref)
    if observed is not None and observed.is_unknown:
        raise unreachable(ref, observed.node)
    if observed is None or not observed.running:
        cause = observed.detail if observed is not None and observed.detail else "it ended by itself"
        raise EngineError(
            "environment.died",
            f"{ref} did not stay up: {cause}{_last_words(engine, ref)}",
            "'devgw image build' makes a fresh image",
        )


def _last_words(engine: Engine, ref: EnvironmentRef) -> str:
    try:
        lines = engine.logs(ref, 5).strip().splitlines()
    except EngineError:
        return ""
    return f" (last line: {lines[-1][:200]})" if lines else ""
