"""Kernels begin with the variables that the user's SSH sessions have, those of ~/.profile among them."""

import asyncio
import os
from pathlib import Path
from typing import Any

from jupyter_server.services.kernels.kernelmanager import ServerKernelManager

from devgw_environment.login_variables import read_login_variables


class SessionKernelManager(ServerKernelManager):
    """Asks a login shell at each start, so that a restarted kernel sees what was changed."""

    async def _async_pre_start_kernel(self, **arguments: Any) -> tuple[list[str], dict[str, Any]]:
        given = arguments.get("env") or dict(os.environ)
        shell, home = os.environ.get("SHELL", "/bin/sh"), Path(os.environ["HOME"])
        variables = await asyncio.to_thread(read_login_variables, shell, home, given)
        started = await super()._async_pre_start_kernel(**{**arguments, "env": variables})
        self._launch_args = {**(self._launch_args or {}), "env": given}  # what a restart begins with
        return started
