"""A task whose second process dies once at step 5: an elastic restart goes on from the newest checkpoint."""

import os
from pathlib import Path

from blocks import Blocks
from devgw_runner import run


class Falling(Blocks):
    def on_step_end(self, ctx):
        mark = Path(os.environ["MARK"])
        if ctx.step == 5 and ctx.rank == ctx.world_size - 1 and not mark.exists():
            mark.write_text("fell")
            os._exit(3)


if __name__ == "__main__":
    run(Falling)
