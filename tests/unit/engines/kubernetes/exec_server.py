"""An endpoint that runs a command for a websocket of v4.channel.k8s.io, as a kubelet does. It is no API server."""

import asyncio
import contextlib
import json
import os
import secrets
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import WSMsgType, web


class ExecServer:
    """Runs commands with /run/devgw at a directory of the test's. `cut` breaks every stream that is open."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = ""
        self.commands = 0
        self._mark = f"DEVGW_TEST_POD={secrets.token_hex(8)}"
        self._streams: set[web.WebSocketResponse] = set()
        self._loop = asyncio.new_event_loop()

    def cut(self) -> None:
        """Break every stream, as a kubelet that starts again does."""
        for stream in set(self._streams):
            asyncio.run_coroutine_threadsafe(stream.close(), self._loop).result(5)

    def end_processes(self) -> None:
        """End what commands left in the background, as a container's end does, and wait until their sockets are closed.

        A process that ends loses its environ before its files: `background` stops to name it while it still listens.
        """
        for number in self.background():
            with contextlib.suppress(ProcessLookupError):
                end = os.pidfd_open(number)
                try:
                    signal.pidfd_send_signal(end, signal.SIGKILL)
                    assert select.select([end], [], [], 20)[0], "it outlives SIGKILL"
                finally:
                    os.close(end)

    def background(self) -> list[int]:
        """Return the processes that carry this server's mark."""
        found = []
        for place in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if self._mark.encode() in (place / "environ").read_bytes().split(b"\0"):
                    found.append(int(place.name))
        return found

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    async def exec(self, request: web.Request) -> web.WebSocketResponse:
        stream = web.WebSocketResponse(protocols=("v4.channel.k8s.io",), max_msg_size=0)
        await stream.prepare(request)
        self._streams.add(stream)
        self.commands += 1
        name, _, value = self._mark.partition("=")
        words = [word.replace("/run/devgw/", f"{self.directory}/") for word in request.query.getall("command")]
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {name: value},
        )
        moves = [
            asyncio.ensure_future(self._outward(stream, 1, process.stdout)),
            asyncio.ensure_future(self._outward(stream, 2, process.stderr)),
        ]
        inward = asyncio.ensure_future(self._inward(stream, process))
        try:
            await asyncio.wait([asyncio.ensure_future(process.wait())])
            await asyncio.gather(*moves, return_exceptions=True)
            with contextlib.suppress(ConnectionError):
                await stream.send_bytes(b"\x03" + json.dumps(_status(process.returncode or 0)).encode())
            await stream.close()
        finally:
            inward.cancel()
            self._streams.discard(stream)
        return stream

    async def _inward(self, stream: web.WebSocketResponse, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        with contextlib.suppress(ConnectionError):
            async for message in stream:
                if message.type is WSMsgType.BINARY and message.data[0] == 0:
                    process.stdin.write(message.data[1:])
                    await process.stdin.drain()
        process.stdin.close()

    @staticmethod
    async def _outward(stream: web.WebSocketResponse, channel: int, source: asyncio.StreamReader | None) -> None:
        assert source is not None
        while data := await source.read(32768):
            await stream.send_bytes(bytes([channel]) + data)

    def run(self, ready: threading.Event) -> None:
        """Serve until the loop is stopped."""
        asyncio.set_event_loop(self._loop)
        application = web.Application()
        application.router.add_get("/pod/exec", self.exec)
        runner = web.AppRunner(application)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)


def _status(code: int) -> dict[str, object]:
    if code == 0:
        return {"status": "Success"}
    cause = {"reason": "ExitCode", "message": str(code)}
    return {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [cause]}}


@contextmanager
def exec_server(directory: Path) -> Iterator[ExecServer]:
    """Yield a server on a port of its own."""
    server, ready = ExecServer(directory), threading.Event()
    thread = threading.Thread(target=server.run, args=(ready,), daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield server
    finally:
        server.end_processes()
        server.stop()
        thread.join(20)
