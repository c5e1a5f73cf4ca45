"""Takes every right from this process that it does not need: another account, no files, no network, no new processes.

What a kernel does not know is left out: the account alone holds where the gateway is root.
"""

import ctypes
import os
import resource
import struct

from gateway.page.web.system_calls import refuse_calls

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446
"""The same numbers on every architecture (landlock(7))."""
_ABI_QUESTION = 1
_FILES_BY_ABI = (0, 13, 14, 15, 15, 16)
"""How many rights on files each ABI knows."""
_NETWORK_ABI, _SCOPE_ABI = 4, 6


def confine(uid: int) -> None:
    """Give up what is not needed; what is open stays open. With a uid, become nobody else's account first."""
    if uid >= 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _close_files(libc)
    refuse_calls(libc)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def _close_files(libc: ctypes.CDLL) -> None:
    """Let no file be opened, no address be reached and nobody be signalled (landlock(7))."""
    abi = libc.syscall(_LANDLOCK_CREATE, None, 0, _ABI_QUESTION)
    if abi < 1:
        return
    files = (1 << _FILES_BY_ABI[min(abi, len(_FILES_BY_ABI) - 1)]) - 1
    rules = struct.pack("QQQ", files, 3 if abi >= _NETWORK_ABI else 0, 3 if abi >= _SCOPE_ABI else 0)
    known = rules[: 24 if abi >= _SCOPE_ABI else 16 if abi >= _NETWORK_ABI else 8]
    ruleset = libc.syscall(_LANDLOCK_CREATE, known, len(known), 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "the page's process could not be confined")
    if libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) != 0:
        raise OSError(ctypes.get_errno(), "the page's process could not be confined")
    os.close(ruleset)
