"""The name in a ClientHello, however it is cut, and what is refused for being read in two ways."""

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.egress.client_hello import HELLO_MAX, Hello, HelloError, read_hello
from tests.unit.egress.hello import client_hello, message_of, minimal, records, server_name

HELLO = client_hello("index.example.net")


def test_the_name_is_read() -> None:
    assert read_hello(HELLO) == Hello(is_tls=True, server_name="index.example.net")


def test_a_hello_without_a_name_is_known_as_such() -> None:
    assert read_hello(client_hello(None)) == Hello(is_tls=True)


@pytest.mark.parametrize("size", [1, 4, 5, 37, 1000])
def test_a_hello_in_several_records_reads_the_same(size: int) -> None:
    assert read_hello(records(message_of(HELLO), size)) == Hello(is_tls=True, server_name="index.example.net")


def test_more_is_waited_for_until_it_is_whole() -> None:
    assert [read_hello(HELLO[:length]) for length in range(len(HELLO))] == [None] * len(HELLO)


def test_what_follows_it_changes_nothing() -> None:
    assert read_hello(HELLO + b"\x17\x03\x03\x00\x05early") == Hello(is_tls=True, server_name="index.example.net")


@pytest.mark.parametrize("beginning", [b"SSH-2.0-OpenSSH_9.2\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x80\x2e\x01\x00\x02"])
def test_what_is_no_tls_passes(beginning: bytes) -> None:
    assert read_hello(beginning) == Hello(is_tls=False)


@pytest.mark.parametrize(
    "data",
    [
        minimal(server_name(b"a.example.net", b"b.example.net")),
        minimal(server_name(b"a.example.net") + server_name(b"b.example.net")),
        minimal(server_name(b"a.example.net", kind=1)),
        minimal(server_name(b"a.example.net") + b"\0\0"),
        minimal(server_name("münchen.example.net".encode())),
        records(b"\x02\0\0\x02ab", 100),
        records(b"\x01\xff\xff\xff" + bytes(100), 100),
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\xff\xff",
        b"\x16\x02\x01\x00\x05",
        records(message_of(HELLO)[:50], 50) + b"\x17\x03\x03\x00\x01a",
        b"\x16\x03\x01\x00\x01\x01" * (HELLO_MAX // 6 + 1),
    ],
    ids=itertools.count(1),  # a hello holds random bytes
)
def test_what_two_readers_could_read_differently_is_refused(data: bytes) -> None:
    with pytest.raises(HelloError):
        read_hello(data)


@given(st.binary(max_size=300), st.integers(0, 60), st.integers(0, 255))
def test_no_bytes_make_it_fail_otherwise(noise: bytes, place: int, value: int) -> None:
    changed = bytearray(HELLO)
    changed[place] = value
    for data in (b"\x16\x03\x01" + noise, bytes(changed) + noise, HELLO[: place * 5] + noise):
        with contextlib.suppress(HelloError):
            read_hello(data)
