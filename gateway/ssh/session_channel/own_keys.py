"""Recognises what writes a key into authorized_keys, as ssh-copy-id does: nothing in an environment reads it.

Who may log in is the gateway's to know. Such a command would succeed, and the key would open nothing.
"""

import posixpath
import re
from typing import Final

LOOKED_AT: Final = 2048
"""Characters of a command that are searched: its length is the client's to choose, and the search is on the loop."""
_FILE = r"""["']?[^\s"'<>|;&]*authorized_keys2?(?![\w.~-])"""
_WRITES = re.compile(rf"""(?:>[>|]?\s*|\btee\s+(?:-\S+\s+)*){_FILE}""")
_NAMED = re.compile(rf"""\b(\w+)={_FILE}.*>>\s*["']?\$\{{?\1\b""", re.DOTALL)  # ssh-copy-id of OpenSSH since 9.8
_ELSEWHERE = re.compile(r"(?:^|[\s;&|(])ssh\s")
_PATH = re.compile(r"(?:^|/)\.ssh/authorized_keys2?$")


def writes_a_key(command: str) -> bool:
    """Say whether the command writes to an authorized_keys of the environment's own."""
    looked_at = command[:LOOKED_AT]
    if _ELSEWHERE.search(looked_at):
        return False
    return bool(_WRITES.search(looked_at) or _NAMED.search(looked_at)) or _is_copied_to(looked_at)


def is_key_file(path: str) -> bool:
    """Say whether a path that sftp names is an authorized_keys: `ssh-copy-id -s` and scp write it in this way."""
    return bool(_PATH.search(posixpath.normpath(path)))


def advice(user: str) -> str:
    """Say how a key is added here."""
    return (
        f"keys are not added by ssh-copy-id here: send the .pub file to an administrator ('devgw key add {user} FILE')"
    )


def _is_copied_to(command: str) -> bool:
    """Say whether it is the far side of `scp -O` or rsync, with such a file as its destination."""
    match [posixpath.basename(word) for word in command.split()]:
        case ["scp", *options, _]:
            receives = "-t" in options
        case ["rsync", "--server", *options, _]:
            receives = "--sender" not in options
        case _:
            return False
    return receives and is_key_file(command.rsplit(maxsplit=1)[-1].strip("'\""))
