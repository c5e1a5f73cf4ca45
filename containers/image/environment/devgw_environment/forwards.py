"""Joins two stream sockets: a message is copied, a stream passes through a pipe by splice(2) and never enters Python.

Bytes that cannot be passed on wait there and nothing more is read: that is the back-pressure.
"""

import contextlib
import fcntl
import os
import select
import socket
import struct

COPIED_BYTES = 16 << 10
CHUNK_BYTES = 256 << 10
CHUNKS_A_TURN = 8
SPARE_PIPES = 8
_NONBLOCK = 2  # SPLICE_F_NONBLOCK, which this Python does not name
_ARRIVALS = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_ENDS = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_ABORT = struct.pack("ii", 1, 0)  # SO_LINGER on, no seconds: close() resets

Pipe = tuple[int, int]


class Pipes:
    """Empty pipes that wait for use; only a direction that moves or is stuck has one."""

    def __init__(self) -> None:
        self.spare: list[Pipe] = []

    def take(self) -> Pipe:
        """An empty pipe."""
        if self.spare:
            return self.spare.pop()
        pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # over the user's share of pipe pages a small one must do (pipe(7))
            fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, CHUNK_BYTES)
        return pipe

    def give_back(self, pipe: Pipe, *, empty: bool) -> None:
        """Keep it for the next, or close it when it holds something or there are enough."""
        if empty and len(self.spare) < SPARE_PIPES:
            self.spare.append(pipe)
        else:
            os.close(pipe[0])
            os.close(pipe[1])


class Flow:
    """One direction: what leaves `source` and enters `sink`."""

    __slots__ = (
        "bulk", "copied", "ended", "ending", "passed", "pipe", "piped", "sink", "sink_gone", "source", "source_gone",
    )  # fmt: skip

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.copied = b""
        self.pipe: Pipe | None = None
        self.piped = 0
        """Bytes in the pipe, which follow those that were copied."""
        self.bulk = False
        """More has come than is worth a copy."""
        self.ending = False
        """The end of the source has come, perhaps behind bytes that were not read yet."""
        self.ended = False
        """Nothing more will be read."""
        self.passed = False
        """The sink was told so."""
        self.source_gone = False
        self.sink_gone = False

    @property
    def is_stuck(self) -> bool:
        """Whether something waits for the sink, which is full."""
        return bool(self.copied or self.piped)

    @property
    def is_done(self) -> bool:
        """Whether nothing more will enter the sink."""
        return self.ended and not self.is_stuck

    def move(self, pipes: Pipes) -> bool:
        """Move until the source is empty or the sink full; True when the turn was over before that."""
        for _ in range(CHUNKS_A_TURN):
            if not self._flush(pipes) or self.ended:
                return False
            if not self._fill(pipes):
                self._flush(pipes)
                return False
        return True

    def _flush(self, pipes: Pipes) -> bool:
        """Pass on what waits; False when the sink is full."""
        try:
            while self.copied:
                self.copied = self.copied[self.sink.send(self.copied) :]
            while self.piped and self.pipe:
                self.piped -= os.splice(self.pipe[0], self.sink.fileno(), self.piped, flags=_NONBLOCK)
        except BlockingIOError:
            return False
        except OSError:
            self.sink_gone = True
            self.end(pipes)
        if self.pipe:
            self.drop(pipes)
        return True

    def _fill(self, pipes: Pipes) -> bool:
        """Read once; False when nothing more is there now.

        A message is copied, since that takes the fewest calls; a read that is not full says that it was all, but for
        an end that epoll told of together with it (epoll(7)). Where more follows, that goes through a pipe.
        """
        try:
            if self.bulk:
                self.pipe = pipes.take()
                self.piped = os.splice(self.source.fileno(), self.pipe[1], CHUNK_BYTES, flags=_NONBLOCK)
                self.ended = not self.piped
            else:
                self.copied = self.source.recv(COPIED_BYTES)
                self.bulk = len(self.copied) == COPIED_BYTES
                self.ended = not self.copied
        except BlockingIOError:
            self.bulk = False
            return False
        except OSError:
            self.source_gone = self.ended = True
        return (self.bulk or self.ending) and not self.ended

    def end(self, pipes: Pipes) -> None:
        """Read no more, and forget what waits."""
        self.ended = True
        self.drop(pipes)

    def drop(self, pipes: Pipes) -> None:
        """Be rid of the pipe and of what waits."""
        if self.pipe:
            pipes.give_back(self.pipe, empty=not self.piped)
            self.pipe, self.piped = None, 0
        self.copied = b""

    def pass_end(self) -> None:
        """Tell the sink, once all has gone through, that nothing more comes."""
        if self.is_done and not self.passed and not self.sink_gone and not self.source_gone:
            self.passed = True
            with contextlib.suppress(OSError):
                self.sink.shutdown(socket.SHUT_WR)


class Forward:
    """Two joined sockets. `near` asked for it, `far` is the service that was asked for.

    The end of one direction is passed on as such. A reset by `far` closes `near` without that, which is how the
    gateway tells them apart; see the environment contract.
    """

    __slots__ = ("down", "far", "near", "near_gone", "stuck", "up")

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near = near
        self.far = far
        self.up = Flow(near, far)
        self.down = Flow(far, near)
        self.near_gone = False
        """Nobody is there to take what the service sends; what came before that is still passed on."""
        self.stuck: tuple[bool, bool] = (False, False)
        """Whether epoll was asked to tell when `near`, when `far` can be written to."""

    @property
    def far_reset(self) -> bool:
        """Whether the service is gone without an end."""
        return self.up.sink_gone or self.down.source_gone

    def note(self, descriptor: int, events: int) -> None:
        """See what epoll says of an end; that of the client's own direction alone is no hang-up."""
        if not events & _ENDS:
            return
        if descriptor == self.far.fileno():
            self.down.ending = True
            return
        self.up.ending = True
        if events & (select.EPOLLHUP | select.EPOLLERR) and not self.down.ended:
            self.near_gone = True

    def turn(self, descriptor: int, pipes: Pipes, poller: select.epoll) -> tuple[bool, bool]:
        """Move what can be moved after an event at one socket; returns whether it is over, and whether there is more.

        Only what the event can have changed is tried: each needless attempt would cost as much as a small message.
        """
        at_near = descriptor == self.near.fileno()
        more = self.up.move(pipes) if at_near or self.up.is_stuck else False
        if self.near_gone or self.up.source_gone:
            self.down.end(pipes)
        elif not at_near or self.down.is_stuck or self.far_reset:
            more |= self.down.move(pipes)
        if self.down.is_done and (self.far_reset or self.up.is_done):
            return True, False
        self.up.pass_end()
        if not self.far_reset:
            self.down.pass_end()
        self._ask(poller)
        return False, more

    def _ask(self, poller: select.epoll) -> None:
        """Ask epoll for writability where something waits, and only there: every read of the peer's would wake us."""
        wanted = (self.down.is_stuck, self.up.is_stuck)
        if wanted == self.stuck:
            return
        for sock, is_wanted, was_wanted in zip((self.near, self.far), wanted, self.stuck, strict=True):
            if is_wanted != was_wanted:
                poller.modify(sock.fileno(), _ARRIVALS | (select.EPOLLOUT if is_wanted else 0))
        self.stuck = wanted

    def watch(self, poller: select.epoll) -> None:
        """Have epoll tell of arrivals at both sockets."""
        for sock in (self.near, self.far):
            poller.register(sock.fileno(), _ARRIVALS)

    def close(self, pipes: Pipes) -> None:
        """Close both; closed descriptors leave epoll by themselves. Who lost the client's words is told by a reset."""
        if self.up.source_gone:
            with contextlib.suppress(OSError):
                self.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        for flow in (self.up, self.down):
            flow.drop(pipes)
        self.near.close()
        self.far.close()
