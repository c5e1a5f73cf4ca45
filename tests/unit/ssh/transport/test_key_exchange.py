"""A guessed key exchange packet is right only where both sides put the same algorithms first (RFC 4253 §7)."""

import pytest
from asyncssh.packet import Boolean, NameList, UInt32

from gateway.ssh.transport.key_exchange import KeyExchangeOffer

OURS = ([b"mlkem768x25519-sha256", b"curve25519-sha256"], [b"ssh-ed25519"])


def kexinit(key_exchanges: list[bytes], host_keys: list[bytes], *, guess: bool = True) -> bytes:
    lists = [key_exchanges, host_keys, [b"in"], [b"out"], *[[b"none"]] * 4, [], []]
    return bytes(17) + b"".join(map(NameList, lists)) + Boolean(guess) + UInt32(0)


@pytest.mark.parametrize(
    ("key_exchanges", "host_keys", "is_right"),
    [
        ([b"mlkem768x25519-sha256"], [b"ssh-ed25519", b"ssh-rsa"], True),
        ([b"curve25519-sha256"], [b"ssh-ed25519"], False),  # what is chosen in the end, yet not our first
        ([b"mlkem768x25519-sha256"], [b"ssh-rsa", b"ssh-ed25519"], False),
        ([], [], False),
    ],
)
def test_a_guess_is_right_where_first_choices_agree(
    key_exchanges: list[bytes], host_keys: list[bytes], *, is_right: bool
) -> None:
    """Not where it hits what is chosen: Dropbear sends the packet again then, and both would be processed."""
    offer = KeyExchangeOffer.read(kexinit(key_exchanges, host_keys))
    assert offer.guess_follows
    assert offer.has_first_choices(*OURS) is is_right


def test_no_guess_and_the_ciphers_of_both_directions_are_read() -> None:
    """The lists in the order of RFC 4253 §7.1."""
    offer = KeyExchangeOffer.read(kexinit([b"x"], [b"y"], guess=False))
    assert (offer.inward, offer.outward, offer.guess_follows) == ([b"in"], [b"out"], False)
