"""Recognises commands that append a key to authorized_keys, as ssh-copy-id does: nothing in an environment reads it.

Who may log in is the gateway's to know. Such a command would succeed, and the key would open nothing.
"""

import re

_FILE = r"""["']?[^\s"'<>|;&]*authorized_keys2?\b"""
_APPENDS = re.compile(rf"""(?:>>\s*|\btee\s+(?:-a|--append)\s+){_FILE}""")
_NAMED = re.compile(rf"""\b(\w+)={_FILE}.*>>\s*["']?\$\{{?\1\b""", re.DOTALL)  # ssh-copy-id of OpenSSH since 9.8
_ELSEWHERE = re.compile(r"(?:^|[\s;&|(])ssh\s")


def adds_a_key(command: str) -> bool:
    """Say whether the command appends to an authorized_keys of the environment's own."""
    if _ELSEWHERE.search(command):
        return False
    return bool(_APPENDS.search(command) or _NAMED.search(command))


def advice(user: str) -> str:
    """Say how a key is added here."""
    return (
        f"keys are not added by ssh-copy-id here: send the .pub file to an administrator ('devgw key add {user} FILE')"
    )
