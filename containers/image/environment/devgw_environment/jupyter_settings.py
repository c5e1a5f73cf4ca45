"""Settings of the notebook server; read by Jupyter, which provides `get_config`.

Access control is not here but on the command line (`notebook.py`), where no file of the user's can loosen it.
"""

import os
from pathlib import Path

from devgw_environment.jupyter_page import prepare_page

c = get_config()  # noqa: F821 - Jupyter puts it into this file's namespace

c.ServerApp.jpserver_extensions = {
    "devgw_environment.socket_keeper": True,
    "devgw_environment.kernel_watch": True,
    "devgw_environment.disk_status": True,
}
c.ServerApp.terminado_settings = {"shell_command": [os.environ.get("SHELL", "/bin/sh"), "-l"]}
c.ServerApp.quit_button = False
c.ZMQChannelsWebsocketConnection.iopub_data_rate_limit = 100_000_000
c.FileContentsManager.delete_to_trash = False
# Kernels talk to the server over Unix sockets too: an environment has no port, not even on its loopback.
c.KernelManager.transport = "ipc"
c.AsyncMappingKernelManager.kernel_manager_class = "devgw_environment.kernel_variables.SessionKernelManager"
c.MultiKernelManager.default_kernel_name = "python3"
# Nothing in here calls home, and nobody is asked whether it may.
c.ServerApp.tornado_settings = {"page_config_hook": prepare_page}
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"
c.LabApp.extra_labextensions_path = [str(Path(__file__).with_name("labextensions"))]
