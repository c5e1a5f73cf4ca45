"""Recognises commands that append a key to authorized_keys, as ssh-copy-id does: nothing in an environment reads it.

Who may log in is the gateway's to know. Such a command would succeed, and the key would open nothing.
"""

import re

_APPENDS = re.compile(r"""(?:cat|tee\s+(?:-a|--append))\s*(?:>>)?\s*["']?[\w~${}/.-]*\.ssh/authorized_keys\b""")


def adds_a_key(command: str) -> bool:
    """Say whether the command appends what it reads to ~/.ssh/authorized_keys."""
    found = _APPENDS.search(command)
    return found is not None and (">>" in found.group() or found.group().startswith("tee"))


def advice(user: str) -> str:
    """Say how a key is added here."""
    return (
        f"keys are not added by ssh-copy-id here: send the .pub file to an administrator ('devgw key add {user} FILE')"
    )
