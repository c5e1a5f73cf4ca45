"""Shard a small model over the processes; for each kind of torch's optimizers, write what the preflight and a step say.

Rank 0 writes sharded_optimizers.json: name -> [refused by the preflight, failed at a real step].
"""

import json
from pathlib import Path

import torch
from blocks import Stack
from devgw_runner.errors import ShardingError
from devgw_runner.parallel.sharded_optimizer import rehearse
from devgw_runner.parallel.world import join_world, leave_world
from devgw_runner.parallel.wrapping import shard_model
from subjects import OPTIMIZERS

world = join_world("cpu")
verdicts = {}
for name, (kind, options) in OPTIMIZERS.items():
    if name == "Mixed":  # none of torch's: it is told at its first step
        continue
    torch.manual_seed(0)
    model = Stack()
    shard_model(model, "fp32", torch.device("cpu"), cpu_offload=False)
    trained = [p for p in model.parameters() if p.dim() == 2 or name != "Muon"]
    optimizer = kind(trained, **{"lr": 0.01, **options})
    begun = len(optimizer.state)  # Adagrad makes its own before the first step
    before = [parameter.full_tensor().clone() for parameter in model.parameters()]
    try:
        rehearse(optimizer)
        refused = ""
    except ShardingError as exc:
        refused = exc.message
    after = [parameter.full_tensor() for parameter in model.parameters()]
    assert all(map(torch.equal, before, after)), name
    assert len(optimizer.state) == begun, name
    model(torch.ones(4, 8)).sum().backward()
    try:
        optimizer.step()
        failed = ""
    except (RuntimeError, NotImplementedError, ValueError, TypeError, AttributeError) as exc:
        failed = str(exc).splitlines()[0]
    verdicts[name] = [refused, failed]
if world.is_main:
    Path("sharded_optimizers.json").write_text(json.dumps(verdicts, indent=1))
leave_world()
