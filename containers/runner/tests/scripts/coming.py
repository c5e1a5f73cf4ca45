"""Endless blocks, slow enough that nodes can come and go while they train; saves often, ends at the step of STEPS."""

import time

from blocks import Blocks, BlocksConfig
from devgw_runner import run


class ComingConfig(BlocksConfig):
    log_every: int = 1
    checkpoint_every: int = 2
    checkpoint_keep: int = 1000
    eval_every: int = 1000000


class Coming(Blocks):
    config = ComingConfig

    def on_step_end(self, ctx):
        time.sleep(0.1)


if __name__ == "__main__":
    run(Coming)
