"""Dial, and where nothing answers, wake and dial again. Written once, for the gateway's loop and for commands.

Who is waiting, in whose name it is woken and what is journaled is the caller's: it hands in `wake`.
"""

import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from gateway.errors import DevgwError, NodeError

T = TypeVar("T")
Dial = Callable[[], Awaitable[socket.socket]]
Wake = Callable[[], Awaitable[object]]


async def dial_awake(dial: Dial, wake: Wake) -> socket.socket:
    """Return a connected stream. Raises: what `wake` says, or the dial after it.

    One whose node does not answer is not woken: it may run there, and must not be started a second time.
    """
    try:
        return await dial()
    except NodeError:
        raise
    except (DevgwError, OSError):
        await wake()
        return await dial()


def blocking(call: Callable[[], T]) -> Callable[[], Awaitable[T]]:
    """Let a call that blocks be a step of a flow that runs `without_loop`."""

    async def step() -> T:
        return call()

    return step


def without_loop(flow: Coroutine[Any, Any, T]) -> T:
    """Run a flow all of whose steps block. There is no event loop, so Ctrl-C ends a wait at once."""
    try:
        flow.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    flow.close()
    raise AssertionError("a step of the flow waits for an event loop")
