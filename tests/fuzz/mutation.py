"""Changes messages at random: the same generator of chance makes the same changes."""

from collections.abc import Callable, Sequence
from random import Random

INTEGERS = (0, 1, 4, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF)
"""Lengths, windows and channel numbers at which arithmetic goes wrong."""
TYPES = (*range(1, 8), 20, 21, 30, 31, 50, 51, 52, 53, 60, 61, 80, 81, 82, *range(90, 101), 192, 255)
"""Message numbers that mean something somewhere (RFC 4250 §4.1)."""
LONGEST_BYTES = 40_000


def _flip(chance: Random, data: bytearray) -> None:
    for _ in range(chance.choice((1, 1, 2, 8))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _truncate(chance: Random, data: bytearray) -> None:
    del data[chance.randrange(len(data)) :]


def _insert(chance: Random, data: bytearray) -> None:
    at = chance.randrange(len(data) + 1)
    data[at:at] = chance.randbytes(chance.choice((1, 4, 64, 1000)))


def _overwrite_integer(chance: Random, data: bytearray) -> None:
    at = chance.randrange(len(data))
    data[at : at + 4] = chance.choice(INTEGERS).to_bytes(4, "big")


def _repeat(chance: Random, data: bytearray) -> None:
    start = chance.randrange(len(data))
    piece = data[start : start + chance.randrange(1, 200)]
    data[start:start] = piece * chance.choice((1, 10, 100))


def _retype(chance: Random, data: bytearray) -> None:
    data[0] = chance.choice(TYPES)


def _erase(chance: Random, data: bytearray) -> None:
    start = chance.randrange(len(data))
    size = chance.randrange(1, 16)
    data[start : start + size] = bytes(len(data[start : start + size]))


def _exchange_string(chance: Random, data: bytearray) -> None:
    """Put another string where the message ends with one, its length and all (RFC 4251 §5)."""
    for at in range(len(data) - 3):
        if int.from_bytes(data[at : at + 4], "big") == len(data) - at - 4:
            content = chance.randbytes(chance.choice((0, 1, 2, 300, 30_000)))
            data[at:] = len(content).to_bytes(4, "big") + content
            return


Change = Callable[[Random, bytearray], None]
IN_PLACE: tuple[Change, ...] = (_flip, _overwrite_integer, _erase, _exchange_string)
"""Changes after which a message can still be read, so that what is behind the reading is reached."""
ANY: tuple[Change, ...] = (*IN_PLACE, _truncate, _insert, _repeat, _retype)


def mutated(chance: Random, message: bytes, changes: Sequence[Change] = ANY, keep: int = 0) -> bytes:
    """Return a message with one to three changes in it, none in its first bytes that are to be kept."""
    data = bytearray(message[keep:])
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        if data:
            chance.choice(changes)(chance, data)
    return message[:keep] + bytes(data[:LONGEST_BYTES])


def shuffled(chance: Random, messages: Sequence[bytes]) -> list[bytes]:
    """Return messages with one of them dropped, doubled, moved or cut off with all that follow, or as they were."""
    result = list(messages)
    at, other = chance.randrange(len(result)), chance.randrange(len(result))
    match chance.randrange(8):
        case 0:
            del result[at]
        case 1:
            result[at:at] = [result[at]] * chance.choice((1, 2, 50))
        case 2:
            result[at], result[other] = result[other], result[at]
        case 3:
            del result[at + 1 :]
    return result
