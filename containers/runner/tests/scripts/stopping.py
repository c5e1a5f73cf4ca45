"""The second process stops answering. WHERE: join, start, step, checkpoint, evaluation; HOW: STOP, sleep, KILL."""

import os
import signal
import time

from blocks import Blocks, BlocksConfig
from devgw_runner import run

WHERE, HOW = os.environ["WHERE"], os.environ.get("HOW", "STOP")
AT = 3


def vanish(where: str) -> None:
    if where != WHERE or os.environ["RANK"] != "1":
        return
    if HOW == "sleep":
        time.sleep(600)
    os.kill(os.getpid(), signal.SIGKILL if HOW == "KILL" else signal.SIGSTOP)


class StoppingConfig(BlocksConfig):
    log_every: int = 1
    checkpoint_every: int = AT
    eval_every: int = AT + 1


class Stopping(Blocks):
    config = StoppingConfig

    def __init__(self) -> None:
        self.steps = 0

    def model(self, cfg):
        vanish("start")
        return super().model(cfg)

    def loss(self, model, batch):
        if not model.training and self.steps > AT:
            vanish("evaluation")
        return super().loss(model, batch)

    def on_step_end(self, ctx):
        self.steps = ctx.step
        if ctx.step == AT:
            vanish("step")

    def state_dict(self):
        if self.steps == AT:
            vanish("checkpoint")
        return {}


if __name__ == "__main__":
    vanish("join")
    run(Stopping)
