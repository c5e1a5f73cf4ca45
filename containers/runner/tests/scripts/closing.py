"""Blocks, where the second process finds its launcher dead only while it closes, after it has saved."""

import os
import threading
import time

from blocks import Blocks
from devgw_runner import entry, run
from devgw_runner.parallel import launcher

LOOK_SECONDS = 0.1
is_closing = threading.Event()
leave_world = entry.leave_world


def leave_slowly() -> None:
    is_closing.set()
    time.sleep(10 * LOOK_SECONDS)
    leave_world()


if __name__ == "__main__":
    if os.environ["LOCAL_RANK"] == "1":
        launcher.LOOK_SECONDS = LOOK_SECONDS
        launcher.Launcher.is_alive = property(lambda _self: not is_closing.is_set())
        entry.leave_world = leave_slowly
    run(Blocks)
