"""The frames that both ends of a stream into a pod speak.

Neither an exec stream nor TLS can end one direction alone. So each direction is cut into frames, a length of four bytes
and that many bytes of content; a frame of no content is the end of that direction. A stream that ends without it was
lost.
"""

import struct
from collections.abc import Iterator

LENGTH = struct.Struct(">I")
END = LENGTH.pack(0)
MOST_CONTENT = 65_536


class FrameReader:
    """Takes pieces of a stream of frames and gives their contents; an empty one is the end."""

    def __init__(self) -> None:
        self._left = b""

    def feed(self, piece: bytes) -> Iterator[memoryview]:
        """Yield the content of each frame that is whole now."""
        whole = self._left + piece if self._left else piece
        view, start = memoryview(whole), 0
        while len(whole) - start >= LENGTH.size:
            (size,) = LENGTH.unpack_from(whole, start)
            if size > MOST_CONTENT:
                raise ValueError(f"a frame of {size} bytes")
            if len(whole) - start - LENGTH.size < size:
                break
            yield view[start + LENGTH.size : start + LENGTH.size + size]
            start += LENGTH.size + size
        self._left = whole[start:]
