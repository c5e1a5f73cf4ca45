"""The program that joins an exec stream to a service's socket inside a pod, and the frames the two ends speak.

An exec stream cannot end one direction alone, and its end says nothing about why. So each direction is cut into
frames, a length of four bytes and that many bytes of content; a frame of no content is the end of that direction.
A stream that ends without it was lost.
"""

import struct
from collections.abc import Iterator

LENGTH = struct.Struct(">I")
END = LENGTH.pack(0)
MOST_CONTENT = 65_536
READY, ABSENT, REFUSED, FORGED = b"+", b"-absent", b"-refused", b"-forged"

PROGRAM = """
import os, socket, stat, struct, sys, threading
service = sys.argv[1]
def leave(word):
    os.write(1, word + b"\\n")
    os._exit(0)
place = "/run/devgw/" + service + ".sock"
try:
    path = os.open(place, os.O_PATH | os.O_NOFOLLOW)
except FileNotFoundError:
    leave(b"-absent")
except OSError:
    leave(b"-forged")
found = os.fstat(path)
if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.getuid():
    leave(b"-forged")
peer = socket.socket(socket.AF_UNIX)
try:
    peer.settimeout(5)
    peer.connect("/proc/self/fd/%d" % path)
    peer.settimeout(None)
except OSError:
    leave(b"-refused")
os.write(1, b"+\\n")
source = os.fdopen(0, "rb", 262144)
def lost():
    os._exit(3)
def write(data):
    view = memoryview(data)
    while view:
        view = view[os.write(1, view):]
def inward():
    try:
        while True:
            head = source.read(4)
            if len(head) < 4:
                lost()
            size, = struct.unpack(">I", head)
            if not size:
                peer.shutdown(socket.SHUT_WR)
                ended.set()
                source.read(1)
                lost()
            data = source.read(size)
            if len(data) < size:
                lost()
            peer.sendall(data)
    except OSError:
        ended.set()
ended = threading.Event()
threading.Thread(target=inward, daemon=True).start()
buffer = bytearray(65540)
view = memoryview(buffer)
try:
    while True:
        size = peer.recv_into(view[4:])
        struct.pack_into(">I", buffer, 0, size)
        write(view[:4 + size])
        if not size:
            break
except OSError:
    lost()
ended.wait()
os._exit(0)
"""
"""Needs nothing but Python's own library; run as `python3 -I -c PROGRAM SERVICE`."""


def frame(content: bytes) -> bytes:
    """Wrap content, which is not empty."""
    return LENGTH.pack(len(content)) + content


class FrameReader:
    """Takes pieces of a stream of frames and gives their contents; an empty one is the end."""

    def __init__(self) -> None:
        self._left = bytearray()

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yield the content of each frame that is whole now."""
        self._left += piece
        start = 0
        while len(self._left) - start >= LENGTH.size:
            (size,) = LENGTH.unpack_from(self._left, start)
            if size > MOST_CONTENT:
                raise ValueError(f"a frame of {size} bytes")
            if len(self._left) - start - LENGTH.size < size:
                break
            yield bytes(self._left[start + LENGTH.size : start + LENGTH.size + size])
            start += LENGTH.size + size
        del self._left[:start]
