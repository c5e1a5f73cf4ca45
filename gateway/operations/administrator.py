"""Who acts on this host: the person at the keyboard, in whose name the journal records what is done."""

import getpass
import os
import pwd

from gateway.model import Actor


def administrator() -> Actor:
    """Return the person at the host's keyboard: the one behind sudo where there is one."""
    return Actor("admin", os.environ.get("SUDO_USER") or _account_name())


def _account_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return getpass.getuser() if "USER" in os.environ else f"uid-{os.getuid()}"
