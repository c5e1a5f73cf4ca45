"""Ciphers that keep their key schedules speak exactly what asyncssh's own speak."""

import os
from collections.abc import Callable

import pytest
from asyncssh.encryption import Encryption, get_encryption, get_encryption_params

from gateway.ssh.transport.ciphers import PacketCipher, kept

NAMES = (b"aes128-gcm@openssh.com", b"aes256-gcm@openssh.com", b"chacha20-poly1305@openssh.com")
Make = Callable[[], Encryption]


@pytest.fixture(params=NAMES, ids=lambda name: name.decode())
def make(request: pytest.FixtureRequest) -> Make:
    """Return a maker of asyncssh's cipher, always with the same keys."""
    key_size, nonce_size, *_ = get_encryption_params(request.param)
    key, nonce = os.urandom(key_size), os.urandom(nonce_size)
    return lambda: get_encryption(request.param, key, nonce)


def ours(encryption: Encryption) -> PacketCipher:
    found = kept(encryption)
    assert isinstance(found, PacketCipher)
    return found


def packet(size: int) -> bytes:
    return os.urandom(size)


def test_sealed_bytes_are_those_of_asyncssh(make: Make) -> None:
    """Packet after packet, so that the counters are compared too."""
    theirs, mine = make(), ours(make())
    for sequence, size in enumerate((16, 32, 32784, 48)):
        plain = packet(size)
        sealed, tag = theirs.encrypt_packet(sequence, size.to_bytes(4, "big"), plain)
        parts = (plain[:5], plain[5:])
        assert b"".join(mine.seal(sequence, parts, size)) == sealed + tag


def test_a_cipher_taken_over_goes_on_where_asyncssh_was(make: Make) -> None:
    """Asyncssh has sent packets already when its cipher is exchanged for one of ours."""
    theirs, reference = make(), make()
    for sequence in range(3):
        plain = packet(32)
        theirs.encrypt_packet(sequence, (32).to_bytes(4, "big"), plain)
        reference.encrypt_packet(sequence, (32).to_bytes(4, "big"), plain)
    mine, plain = ours(theirs), packet(64)
    sealed, tag = reference.encrypt_packet(3, (64).to_bytes(4, "big"), plain)
    assert b"".join(mine.encrypt_packet(3, (64).to_bytes(4, "big"), plain)) == sealed + tag


def test_what_asyncssh_seals_is_opened(make: Make) -> None:
    """In one piece, and in the two that asyncssh's own way of receiving hands over."""
    theirs, whole, pieces = make(), ours(make()), ours(make())
    for sequence in range(4):
        plain = packet(4096)
        sealed, tag = theirs.encrypt_packet(sequence, (4096).to_bytes(4, "big"), plain)
        assert whole.length(sequence, memoryview(sealed)[:4]) == 4096
        assert whole.open(sequence, memoryview(sealed + tag)) == plain
        first, length = pieces.decrypt_header(sequence, sealed[:16], 4)
        assert int.from_bytes(length, "big") == 4096
        assert pieces.decrypt_packet(sequence, first, sealed[16:], 4, tag) == plain


@pytest.mark.parametrize("place", [0, 4, 100, -1], ids=["length", "begin", "middle", "tag"])
def test_a_changed_bit_is_not_opened(make: Make, place: int) -> None:
    """Wherever it is, the length included."""
    sealed, tag = make().encrypt_packet(0, (256).to_bytes(4, "big"), packet(256))
    wire = bytearray(sealed + tag)
    wire[place] ^= 1
    assert ours(make()).open(0, memoryview(wire)) is None


def test_a_packet_out_of_order_is_not_opened(make: Make) -> None:
    """A replayed or reordered packet has another nonce."""
    theirs, mine = make(), ours(make())
    first = b"".join(theirs.encrypt_packet(0, (64).to_bytes(4, "big"), packet(64)))
    assert mine.open(0, memoryview(first)) is not None
    assert mine.open(1, memoryview(first)) is None


def test_nonces_never_repeat_when_the_counter_wraps() -> None:
    """RFC 5647 §7.1: the invocation counter is of 64 bits, modulo its size."""
    nonce = b"abcd" + b"\xff" * 8
    theirs = get_encryption(b"aes128-gcm@openssh.com", bytes(16), nonce)
    mine = ours(get_encryption(b"aes128-gcm@openssh.com", bytes(16), nonce))
    for sequence in range(3):
        plain = packet(32)
        assert b"".join(mine.seal(sequence, (plain,), 32)) == b"".join(
            theirs.encrypt_packet(sequence, (32).to_bytes(4, "big"), plain)
        )


def test_ciphers_that_are_no_aead_stay() -> None:
    """AES-CTR with its MAC keeps asyncssh's way."""
    counter = get_encryption(b"aes128-ctr", bytes(16), bytes(16), b"hmac-sha2-256-etm@openssh.com", bytes(32), True)
    assert kept(counter) is counter
    assert kept(None) is None
