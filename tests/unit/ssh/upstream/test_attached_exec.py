"""A program against a real sshd is in tests/e2e/test_run.py; here is what it owes to this process's own streams."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.ssh.upstream.attached_exec import _ReaderGoneError, _write_all


def test_output_is_written_whole() -> None:
    """A pipe that takes less than what came is written to again."""
    reading, writing = os.pipe()
    data = os.urandom(1_000_000)
    with ThreadPoolExecutor() as pool, os.fdopen(reading, "rb") as pipe:
        read = pool.submit(pipe.read)
        _write_all(writing, data)
        os.close(writing)
        assert read.result() == data


def test_a_reader_that_left_is_not_taken_for_the_environment() -> None:
    """`devgw logs alice | head -1` ends quietly; a connection that breaks is a failure of ours."""
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(_ReaderGoneError):
        _write_all(writing, b"more")
    os.close(writing)
