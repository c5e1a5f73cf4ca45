"""Whether a user's own server has the notebook's port inside (`notebook-port` in the environment contract).

Forwards of that number always reach the notebook, so such a server is never seen through one; its user should hear why.
"""

import asyncio
import socket
from typing import Final

from gateway.errors import DevgwError
from gateway.model import EnvironmentRef
from gateway.ssh.runtime import Runtime

ANSWER_SECONDS: Final = 2.0
_QUESTION = b"notebook-port\n"
_TAKEN = b"-taken\n"


async def is_notebook_port_taken(runtime: Runtime, ref: EnvironmentRef) -> bool:
    """Ask the environment, which is not woken for it; an older image, or one that is silent, counts as a no."""
    try:
        sock = await runtime.offload.quick(runtime.services.environments.dial, ref, "ports")
    except (DevgwError, OSError):
        return False
    with sock:
        try:
            return await asyncio.wait_for(_ask(sock), ANSWER_SECONDS)
        except (OSError, TimeoutError):
            return False


async def _ask(sock: socket.socket) -> bool:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, _QUESTION)
    answer = b""
    while b"\n" not in answer and len(answer) < len(_TAKEN):
        received = await loop.sock_recv(sock, len(_TAKEN))
        if not received:
            break
        answer += received
    return answer == _TAKEN
