"""Journals what sftp does with files, by reading requests and answers as they pass. Never alters or delays a byte.

What a request will take in the journal is charged when it is read, so that its channel can be held back in time.
A file is `sftp.opened` when the environment has said yes, and `sftp.closed` with what was read and written.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from json.encoder import encode_basestring_ascii
from sys import getsizeof

from gateway.audit.event import Event
from gateway.gate import Budget, NoBudget
from gateway.ssh.connection_registry import ClientIdentity
from gateway.ssh.observers.remembered import Remembered
from gateway.ssh.observers.sftp_packets import Fields, Framer, Packet

PENDING_MAX = 4096
"""Requests without an answer, and open files, that are remembered; then the oldest is journaled unfinished."""
HELD_MAX_BYTES = 512 << 10
"""What the requests of one channel, and its open files, may each take in memory; then likewise."""
HANDLE_MAX = 256
"""Bytes of a file's handle (draft-ietf-secsh-filexfer-02 §6.3); a longer one is known by its hash."""
PATH_MAX = 1024
"""Of a path, bytes in the journal; a longer one is cut and named by its hash."""
_OPEN, _CLOSE, _READ, _WRITE, _SETSTAT, _FSETSTAT = 3, 4, 5, 6, 9, 10
_REMOVE, _MKDIR, _RMDIR, _RENAME, _SYMLINK, _EXTENDED = 13, 14, 15, 18, 20, 200
_STATUS, _HANDLE, _DATA = 101, 102, 103
_PATHS = {
    _SETSTAT: "sftp.attributes-set",
    _REMOVE: "sftp.removed",
    _MKDIR: "sftp.made-directory",
    _RMDIR: "sftp.removed-directory",
}
_PAIRS = {_RENAME: "sftp.renamed", _SYMLINK: "sftp.linked"}
_EXTENSIONS = {
    b"posix-rename@openssh.com": ("sftp.renamed", 2),
    b"hardlink@openssh.com": ("sftp.linked", 2),
    b"lsetstat@openssh.com": ("sftp.attributes-set", 1),
}
_APPEND_WRITE = 0x2 | 0x4 | 0x8 | 0x10  # SSH_FXF_WRITE, APPEND, CREAT, TRUNC
_EVENT_BYTES = 500  # an event of no path
_ENTRY_BYTES = 500  # of memory, for what is remembered, without its texts
_Detail = dict[str, str | int | float | bool | None]


@dataclass(slots=True)
class _File:
    """An open file; `read_bytes` went to the user."""

    path: str
    mode: str
    read_bytes: int = 0
    written_bytes: int = 0

    @property
    def held_bytes(self) -> int:
        """About what it takes in memory."""
        return _ENTRY_BYTES + getsizeof(self.path)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that waits for its answer: what to journal, or the file it opens, reads or closes."""

    code: str = ""
    detail: tuple[tuple[str, str], ...] = ()
    file: _File | None = None

    @property
    def size_bytes(self) -> int:
        """About what its event takes in the journal; nothing for what is not journaled."""
        if not self.code:
            return 0
        return _EVENT_BYTES + sum(len(encode_basestring_ascii(str(text))) for text in self.told().values())

    @property
    def held_bytes(self) -> int:
        """About what it takes in memory."""
        return _ENTRY_BYTES + sum(getsizeof(text) for text in self.told().values())

    def told(self) -> _Detail:
        detail: _Detail = dict(self.detail)
        return detail | ({"path": self.file.path, "mode": self.file.mode} if self.file else {})


class SftpJournal:
    """The observer of one sftp channel."""

    def __init__(
        self,
        identity: ClientIdentity,
        submit: Callable[[Event], object],
        budget: Budget | None = None,
        on_write: Callable[[str], None] = lambda _path: None,
    ) -> None:
        """`on_write` is told the path of each file that is to be opened for writing, before the environment is."""
        self._on_write = on_write
        self._identity = identity
        self._submit = submit
        self._budget = budget or NoBudget()
        self._requests, self._answers = Framer(), Framer()
        self._asked: Remembered[int, _Asked] = Remembered(PENDING_MAX, HELD_MAX_BYTES)
        self._files: Remembered[bytes, _File] = Remembered(PENDING_MAX, HELD_MAX_BYTES)

    def typed(self, data: bytes) -> None:
        for packet in self._requests.feed(data):
            _survive(self._request, packet)

    def shown(self, data: bytes) -> None:
        for packet in self._answers.feed(data):
            _survive(self._answer, packet)

    def resized(self, width: int, height: int) -> None:
        """There is no terminal."""

    def ended(self) -> None:
        """Files still open end with the channel, and requests that were never answered are told."""
        for asked in self._asked.drain():
            self._note_unanswered(asked)
        for file in self._files.drain():
            self._note_closed(file)

    def _request(self, packet: Packet) -> None:
        fields = Fields(packet.head)
        number = fields.number()
        if packet.kind == _OPEN:
            path = _shown(fields.string())
            mode = "write" if fields.number() & _APPEND_WRITE else "read"
            self._remember(number, _Asked("sftp.opened", file=_File(path, mode)))
            if mode == "write":
                self._on_write(path)
        elif packet.kind == _WRITE:
            file = self._files.get(_handle(fields))
            if file:
                fields.number(8)
                file.written_bytes += fields.number()
        elif packet.kind == _READ:
            self._remember(number, _Asked(file=self._files.get(_handle(fields))))
        elif packet.kind == _CLOSE:
            file = self._files.pop(_handle(fields))
            if file:
                self._note_closed(file)
        else:
            self._remember_change(packet.kind, number, fields)

    def _remember_change(self, kind: int, number: int, fields: Fields) -> None:
        code, paths = _PATHS.get(kind, ""), 1
        if kind in _PAIRS:
            code, paths = _PAIRS[kind], 2
        elif kind == _EXTENDED:
            code, paths = _EXTENSIONS.get(fields.string(), ("", 0))
        elif kind == _FSETSTAT:
            file = self._files.get(_handle(fields))
            self._remember(number, _Asked("sftp.attributes-set", (("path", file.path if file else ""),)))
            return
        if code:
            names = ("path", "target")[:paths]
            self._remember(number, _Asked(code, tuple((name, _shown(fields.string())) for name in names)))

    def _answer(self, packet: Packet) -> None:
        fields = Fields(packet.head)
        asked = self._asked.pop(fields.number()) if packet.kind in {_STATUS, _HANDLE, _DATA} else None
        if asked is None:
            return
        self._budget.charge(self._identity.actor, -asked.size_bytes)
        if packet.kind == _DATA and asked.file:
            asked.file.read_bytes += fields.number()
        elif packet.kind == _HANDLE and asked.file:
            for gone in self._files.put(_handle(fields), asked.file, asked.file.held_bytes):
                self._note_closed(gone)
            self._note(asked.code, asked.told() | {"ok": True})
        elif packet.kind == _STATUS and asked.code:
            self._note(asked.code, asked.told() | {"ok": fields.number() == 0})

    def _remember(self, number: int, asked: _Asked) -> None:
        self._budget.charge(self._identity.actor, asked.size_bytes)
        for gone in self._asked.put(number, asked, asked.held_bytes):
            self._note_unanswered(gone)

    def _note_unanswered(self, asked: _Asked) -> None:
        """Say what was asked for where the answer was not seen: `ok` is null."""
        self._budget.charge(self._identity.actor, -asked.size_bytes)
        if asked.code:
            self._note(asked.code, asked.told() | {"ok": None})

    def _note_closed(self, file: _File) -> None:
        detail: _Detail = {"path": file.path, "mode": file.mode}
        self._note("sftp.closed", detail | {"read_bytes": file.read_bytes, "written_bytes": file.written_bytes})

    def _note(self, code: str, detail: _Detail) -> None:
        self._submit(Event(code, self._identity.actor, str(self._identity.ref), detail=detail))


def _survive(read: Callable[[Packet], None], packet: Packet) -> None:
    """A packet that is not of its form is the environment's to refuse; here it is passed over."""
    try:
        read(packet)
    except ValueError:
        return


def _handle(fields: Fields) -> bytes:
    """Read a file's handle, as the key of what is known of the file."""
    handle = fields.string()
    return handle if len(handle) <= HANDLE_MAX else sha256(handle).digest()


def _shown(path: bytes) -> str:
    """Return a path as the journal holds it, cut where it is long; then its hash says which it was."""
    text = path.decode("utf-8", "backslashreplace")
    if len(text) <= PATH_MAX and len(encode_basestring_ascii(text)) <= PATH_MAX + 2:
        return text
    text = text[:PATH_MAX]
    while len(encode_basestring_ascii(text)) > PATH_MAX:
        text = text[: len(text) * 7 // 8]
    return f"{text}... ({len(path)} bytes, sha256 {sha256(path).hexdigest()[:16]})"
