"""Which commands write a key where nothing reads it, and that asking so costs the loop nothing."""

import time

import pytest

from gateway.ssh.session_channel.own_keys import is_key_file, writes_a_key


@pytest.mark.parametrize(
    ("command", "does"),
    [
        # to the file
        ("cat >> .ssh/authorized_keys", True),
        ("cat >|'.ssh/authorized_keys2'", True),
        ("umask 077; tee -a ~/.ssh/authorized_keys", True),
        ("scp -t .ssh/authorized_keys", True),
        ("/usr/bin/scp -v -t -- '/home/alice/.ssh/authorized_keys'", True),
        ("rsync --server -logDtpre.iLsfxCIvu . .ssh/authorized_keys", True),
        # from it, or elsewhere
        ("scp -f .ssh/authorized_keys", False),
        ("rsync --server --sender -logDtpre.iLsfxCIvu . .ssh/authorized_keys", False),
        ("scp -t .ssh/config", False),
        ("cat <.ssh/authorized_keys >all", False),
        ("ssh elsewhere 'cat >>.ssh/authorized_keys'", False),
        ("", False),
    ],
)
def test_a_command_writes_a_key(command: str, does: bool) -> None:
    """As ssh-copy-id of each version, scp, rsync and people do."""
    assert writes_a_key(command) is does


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        (".ssh/authorized_keys", True),
        ("/home/alice/.ssh/./authorized_keys2", True),
        ("/home/alice/x/../.ssh//authorized_keys", True),
        ("/home/alice/.ssh/authorized_keys.old", False),
        ("/home/alice/authorized_keys", False),
        ("/home/alice/.ssh/authorized_keys/x", False),
        ("", False),
    ],
)
def test_a_path_is_a_file_of_keys(path: str, is_one: bool) -> None:
    """However it is written."""
    assert is_key_file(path) is is_one


@pytest.mark.parametrize("piece", ["a=authorized_keys ", "tee -", ">", "/", "rsync --server ", '>> "', " "])
def test_a_long_command_is_searched_no_longer_than_a_short_one(piece: str) -> None:
    """Of 256 KiB, which a client may send; what is sought tries many ways, and the whole would take seconds."""
    command = piece * (256 * 1024 // len(piece))
    began = time.process_time()
    writes_a_key(command)
    assert time.process_time() - began < 0.1
