"""Journals what sftp does with files, by reading requests and answers as they pass. Never alters or delays a byte.

A file is `sftp.opened` when the environment has said yes, and `sftp.closed` with what was read and written.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from gateway.audit.event import Event
from gateway.ssh.connection_registry import ClientIdentity
from gateway.ssh.observers.sftp_packets import Fields, Framer, Packet

PENDING_MAX = 4096
"""Requests without an answer, and open files, that are remembered; the oldest is forgotten first."""
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
K = TypeVar("K")
V = TypeVar("V")
_Detail = dict[str, str | int | float | bool | None]


@dataclass(slots=True)
class _File:
    """An open file; `read_bytes` went to the user."""

    path: str
    mode: str
    read_bytes: int = 0
    written_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that waits for its answer: what to journal, or the file it opens, reads or closes."""

    code: str = ""
    detail: tuple[tuple[str, str], ...] = ()
    file: _File | None = None


class SftpJournal:
    """The observer of one sftp channel."""

    def __init__(self, identity: ClientIdentity, submit: Callable[[Event], object]) -> None:
        self._identity = identity
        self._submit = submit
        self._requests, self._answers = Framer(), Framer()
        self._asked: OrderedDict[int, _Asked] = OrderedDict()
        self._files: OrderedDict[bytes, _File] = OrderedDict()

    def typed(self, data: bytes) -> None:
        for packet in self._requests.feed(data):
            _survive(self._request, packet)

    def shown(self, data: bytes) -> None:
        for packet in self._answers.feed(data):
            _survive(self._answer, packet)

    def resized(self, width: int, height: int) -> None:
        """There is no terminal."""

    def ended(self) -> None:
        """Files still open end with the channel."""
        for file in self._files.values():
            self._note_closed(file)
        self._files.clear()

    def _request(self, packet: Packet) -> None:
        fields = Fields(packet.head)
        number = fields.number()
        if packet.kind == _OPEN:
            path = _shown(fields.string())
            mode = "write" if fields.number() & _APPEND_WRITE else "read"
            self._remember(number, _Asked("sftp.opened", file=_File(path, mode)))
        elif packet.kind == _WRITE:
            file = self._files.get(fields.string())
            if file:
                fields.number(8)
                file.written_bytes += fields.number()
        elif packet.kind == _READ:
            self._remember(number, _Asked(file=self._files.get(fields.string())))
        elif packet.kind == _CLOSE:
            file = self._files.pop(fields.string(), None)
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
            file = self._files.get(fields.string())
            self._remember(number, _Asked("sftp.attributes-set", (("path", file.path if file else ""),)))
            return
        if code:
            names = ("path", "target")[:paths]
            self._remember(number, _Asked(code, tuple((name, _shown(fields.string())) for name in names)))

    def _answer(self, packet: Packet) -> None:
        fields = Fields(packet.head)
        asked = self._asked.pop(fields.number(), None) if packet.kind in {_STATUS, _HANDLE, _DATA} else None
        if asked is None:
            return
        if packet.kind == _DATA and asked.file:
            asked.file.read_bytes += fields.number()
        elif packet.kind == _HANDLE and asked.file:
            _bounded(self._files, fields.string(), asked.file)
            self._note(asked.code, {"path": asked.file.path, "mode": asked.file.mode, "ok": True})
        elif packet.kind == _STATUS and asked.code:
            detail: _Detail = dict(asked.detail)
            if asked.file:
                detail |= {"path": asked.file.path, "mode": asked.file.mode}
            self._note(asked.code, detail | {"ok": fields.number() == 0})

    def _remember(self, number: int, asked: _Asked) -> None:
        _bounded(self._asked, number, asked)

    def _note_closed(self, file: _File) -> None:
        detail: _Detail = {"path": file.path, "mode": file.mode}
        self._note("sftp.closed", detail | {"read_bytes": file.read_bytes, "written_bytes": file.written_bytes})

    def _note(self, code: str, detail: _Detail) -> None:
        self._submit(Event(code, self._identity.actor, str(self._identity.ref), detail=detail))


def _bounded(table: "OrderedDict[K, V]", key: K, value: V) -> None:
    table[key] = value
    while len(table) > PENDING_MAX:
        table.popitem(last=False)


def _survive(read: Callable[[Packet], None], packet: Packet) -> None:
    """A packet that is not of its form is the environment's to refuse; here it is passed over."""
    try:
        read(packet)
    except ValueError:
        return


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")[:4096]
