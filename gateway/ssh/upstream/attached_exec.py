"""Runs one program inside an environment with this process's own three streams: what `devgw run` needs.

Whether it may run, and writing that down, is the caller's.
"""

import asyncio
import os
import shlex
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import asyncssh

from gateway.errors import EngineError
from gateway.ssh.upstream.environment_login import Door, log_in_for_command

_CHUNK_BYTES = 64 * 1024
_SIGNAL_BASE = 128
_PATIENCE = 3
"""The runner takes the first Ctrl-C as `save and end`, the second as `now`; the third leaves what does not answer."""


class _ReaderGoneError(Exception):
    """Nobody reads our output any more; a BrokenPipeError of its own would look like one of the connection's."""


@dataclass(frozen=True, slots=True)
class Streams:
    """File descriptors of the three streams; this process's own are 0, 1 and 2."""

    stdin: int = 0
    stdout: int = 1
    stderr: int = 2


@dataclass(slots=True)
class Outcome:
    """What a program left: its exit code, 128 + N after signal N, and how many bytes went either way."""

    exit_code: int | None = None
    sent_bytes: int = 0
    received_bytes: int = 0


@dataclass(frozen=True, slots=True)
class AttachedExec:
    """One program to run: where, by which keys, with which streams; `on_tick` is called while it runs."""

    door: Door
    arguments: Sequence[str]
    streams: Streams = Streams()
    on_tick: Callable[[], None] = lambda: None
    tick_seconds: float = 60.0


def run_attached(dialled: socket.socket, program: AttachedExec, outcome: Outcome) -> None:
    """Run it to its end, or to the end of the connection; the outcome is filled in also when this raises.

    Raises:
        EngineError: `environment.unreachable`, when the environment does not let us in, or is gone before the end.
        BrokenPipeError: whoever read the output has gone.
        KeyboardInterrupt: the third Ctrl-C.
    """
    try:
        asyncio.run(_run(dialled, program, outcome))
    except _ReaderGoneError as exc:
        raise BrokenPipeError from exc
    except asyncio.CancelledError as exc:
        raise KeyboardInterrupt from exc
    except (asyncssh.Error, OSError) as exc:
        raise EngineError("environment.unreachable", f"{program.door.ref} does not let the gateway in: {exc}") from exc
    finally:
        dialled.close()
    if outcome.exit_code is None:
        raise EngineError("environment.unreachable", f"the connection to {program.door.ref} was lost")


async def _run(dialled: socket.socket, program: AttachedExec, outcome: Outcome) -> None:
    command = shlex.join(program.arguments)
    connection = await log_in_for_command(dialled, program.door, f"devgw run {program.door.ref}")
    try:
        process = await connection.create_process(command, encoding=None)
        _pass_signals(process)
        _feed(process, program.streams.stdin, outcome)
        ticking = asyncio.create_task(_tick(program))
        await asyncio.gather(
            _show(process.stdout, program.streams.stdout, outcome),
            _show(process.stderr, program.streams.stderr, outcome),
        )
        await process.wait_closed()
        ticking.cancel()
        outcome.exit_code = _exit_code(process)
    finally:
        connection.abort()


def _pass_signals(process: "asyncssh.SSHClientProcess[bytes]") -> None:
    """Have Ctrl-C and SIGTERM go to the program (RFC 4254 §6.9) instead of ending this one."""
    loop = asyncio.get_running_loop()
    running = asyncio.current_task()
    count = 0

    def on_interrupt() -> None:
        nonlocal count
        count += 1
        if count < _PATIENCE:
            _send(process, "INT")
        elif running is not None:
            running.cancel()

    loop.add_signal_handler(signal.SIGINT, on_interrupt)
    loop.add_signal_handler(signal.SIGTERM, lambda: _send(process, "TERM"))


def _send(process: "asyncssh.SSHClientProcess[bytes]", name: str) -> None:
    with suppress(OSError):  # it has ended meanwhile
        process.send_signal(name)


def _feed(process: "asyncssh.SSHClientProcess[bytes]", stdin: int, outcome: Outcome) -> None:
    """Pass stdin on from a thread: a file, a terminal and /dev/null can all be read there, none made non-blocking."""
    loop = asyncio.get_running_loop()

    async def write(data: bytes) -> None:
        if data:
            process.stdin.write(data)
            outcome.sent_bytes += len(data)
            await process.stdin.drain()
        else:
            process.stdin.write_eof()

    def read() -> None:
        with suppress(OSError, RuntimeError):  # the program or the loop has ended, and with it any use for input
            data = b"-"
            while data:
                data = os.read(stdin, _CHUNK_BYTES)
                asyncio.run_coroutine_threadsafe(write(data), loop).result()

    threading.Thread(target=read, name="stdin", daemon=True).start()


async def _show(reader: "asyncssh.SSHReader[bytes]", stream: int, outcome: Outcome) -> None:
    """Write output as it comes; a slow reader of ours slows the program, not fills the memory."""
    while data := await reader.read(_CHUNK_BYTES):
        outcome.received_bytes += len(data)
        await asyncio.to_thread(_write_all, stream, data)


def _write_all(stream: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(stream, view) :]
    except BrokenPipeError as exc:
        raise _ReaderGoneError from exc


async def _tick(program: AttachedExec) -> None:
    while True:
        await asyncio.to_thread(program.on_tick)
        await asyncio.sleep(program.tick_seconds)


def _exit_code(process: "asyncssh.SSHClientProcess[bytes]") -> int | None:
    if process.exit_signal is not None:
        number = getattr(signal, f"SIG{process.exit_signal[0]}", signal.SIGKILL)
        return _SIGNAL_BASE + int(number)
    return process.exit_status
