"""Small trainings that differ in what a resume can get wrong: model x optimizer x schedule x data.

In a process of its own the subject comes from the environment: SUBJECT=conv/AdamW-fused/OneCycleLR/map.
"""

import os
import random
import signal
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
from devgw_runner import Task, TrainConfig, run
from torch import Tensor, nn, optim
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR
from torch.utils.data import DataLoader, Dataset, IterableDataset

STEPS = 9
BATCH = 4
SAMPLES = 20
CLASSES = 3


class Conv(nn.Module):
    """Channels last on the defaults: kernels of 3x3, 1x1 and depthwise, without batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 4, 1), nn.ReLU()
        )
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.head(self.layers(x).mean((2, 3)))


class Tied(nn.Module):
    """One weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(27, 27)
        self.first = nn.Linear(27, 27, bias=False)
        self.second = nn.Linear(27, 27, bias=False)
        self.second.weight = self.first.weight
        self.head = nn.Linear(27, CLASSES)

    def forward(self, x):
        x = self.second(torch.tanh(self.inner(torch.tanh(self.first(x.flatten(1))))))
        return self.head(x)


class NormDropout(nn.Module):
    """Batch norm's statistics, dropout's masks, both also after a convolution; extra state and an odd buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm2d = nn.BatchNorm2d(5)
        self.drop2d = nn.Dropout2d(0.3)
        self.linear = nn.Linear(5, 8)
        self.norm = nn.BatchNorm1d(8, momentum=None)
        self.drop = nn.Dropout(0.4)
        self.head = nn.Linear(8, CLASSES)
        self.register_buffer("last_mean", torch.zeros(3, 3).t())
        self.calls = 0

    def forward(self, x):
        if self.training:
            self.calls += 1
            self.last_mean = x.mean(0)[:, 0].detach().t() * self.calls
        x = self.drop2d(torch.relu(self.norm2d(self.conv(x)))).mean((2, 3))
        return self.head(self.drop(torch.relu(self.norm(self.linear(x)))))

    def get_extra_state(self):
        return {"calls": np.int64(self.calls)}

    def set_extra_state(self, state):
        self.calls = int(state["calls"])


class Words(nn.Module):
    """An embedding with sparse gradients, for the optimizer that takes only these."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(16, CLASSES, sparse=True)

    def forward(self, x):
        return self.words((x.flatten(1)[:, :5].abs() * 7).long() % 16).mean(1)


class Matrices(nn.Module):
    """Only matrices are trained, for the optimizer that takes only these."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(27, 12, bias=False), nn.Tanh(), nn.Linear(12, CLASSES, bias=False))

    def forward(self, x):
        return self.layers(x.flatten(1))


class HalfWeights(Tied):
    """Weights in bfloat16; some optimizers keep their state in float32 beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.to(torch.bfloat16)

    def forward(self, x):
        return super().forward(x.to(torch.bfloat16)).float()


MODELS = {"conv": Conv, "tied": Tied, "norm-dropout": NormDropout, "two-groups": Conv, "bfloat16": HalfWeights}
SPECIAL_MODELS = {"Muon": Matrices, "SparseAdam": Words}


class MixedState(optim.Optimizer):
    """State of every kind: of another dtype, nested, sharing memory, strided, integers, not per parameter."""

    def __init__(self, params, lr: float) -> None:
        super().__init__(params, {"lr": torch.tensor(lr), "scales": [torch.ones(2)]})

    @torch.no_grad()
    def step(self, closure=None):
        self.state["all"] = {"steps": self.state.get("all", {}).get("steps", 0) + 1, "sum": torch.ones(3, 2).t()}
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    flat = torch.zeros(2 * p.numel(), dtype=torch.float64)
                    state["halves"] = [flat[: p.numel()], flat[p.numel() :]]
                    state["whole"] = flat
                    state["moment"] = torch.zeros(p.numel() + 5, dtype=torch.float32)[2 : 2 + p.numel()].view(p.shape)
                    state["counts"] = {"signs": torch.zeros(p.shape, dtype=torch.int8), "n": np.int64(0)}
                grad = p.grad.float()
                state["moment"].mul_(0.9).add_(grad)
                state["whole"].add_(1.0)
                state["halves"][0].add_(grad.double().flatten())
                state["counts"]["signs"] += grad.sign().to(torch.int8)
                state["counts"]["n"] += 1
                update = state["moment"] + 1e-3 * state["whole"][: p.numel()].view(p.shape).float()
                p.add_((-group["lr"] * group["scales"][0][0] * update).to(p.dtype))


def _variants() -> dict[str, tuple[type[optim.Optimizer], dict]]:
    """Every optimizer of torch in every implementation it has on a CPU, and options that add state."""
    found = {}
    for name in dir(optim):
        kind = getattr(optim, name)
        if not (isinstance(kind, type) and issubclass(kind, optim.Optimizer)) or name in {"Optimizer", "LBFGS"}:
            continue
        parameters = kind.__init__.__code__.co_varnames
        if "foreach" in parameters:
            found[f"{name}-loop"] = (kind, {"foreach": False})
            found[f"{name}-foreach"] = (kind, {"foreach": True})
        else:
            found[name] = (kind, {})
        if "fused" in parameters:
            found[f"{name}-fused"] = (kind, {"fused": True})
    extra = {
        "SGD-foreach": {"momentum": 0.9, "nesterov": True},
        "SGD-fused": {"momentum": 0.9, "weight_decay": 0.01},
        "SGD-loop": {"momentum": 0.8, "dampening": 0.1},
        "RMSprop-foreach": {"momentum": 0.9, "centered": True},
        "AdamW-foreach": {"amsgrad": True},
        "Adam-fused": {"amsgrad": True, "maximize": True},
    }
    found = {name: (kind, options | extra.get(name, {})) for name, (kind, options) in found.items()}
    found["Adam-tensor-lr"] = (optim.Adam, {"lr": torch.tensor(0.01), "foreach": False})
    found["Mixed"] = (MixedState, {})
    return found


OPTIMIZERS = _variants()
FUSED_NEED_FLOAT32 = {"bfloat16"}


def _make_schedules():
    def chained(o, total):
        return lr_scheduler.ChainedScheduler([lr_scheduler.ConstantLR(o, 0.5, 3), lr_scheduler.ExponentialLR(o, 0.9)])

    def sequential(o, total):
        warm, rest = lr_scheduler.LinearLR(o, 0.1, total_iters=3), lr_scheduler.CosineAnnealingLR(o, total)
        return lr_scheduler.SequentialLR(o, [warm, rest], milestones=[3])

    return {
        "none": lambda o, total: None,
        "LambdaLR": lambda o, total: lr_scheduler.LambdaLR(o, lambda s: 1 / (1 + s)),
        "MultiplicativeLR": lambda o, total: lr_scheduler.MultiplicativeLR(o, lambda s: 0.9),
        "StepLR": lambda o, total: lr_scheduler.StepLR(o, 2, 0.7),
        "MultiStepLR": lambda o, total: lr_scheduler.MultiStepLR(o, [2, 5, 5]),
        "ConstantLR": lambda o, total: lr_scheduler.ConstantLR(o, 0.3, 4),
        "LinearLR": lambda o, total: lr_scheduler.LinearLR(o, 0.2, 1.0, total),
        "ExponentialLR": lambda o, total: lr_scheduler.ExponentialLR(o, 0.8),
        "PolynomialLR": lambda o, total: lr_scheduler.PolynomialLR(o, total, 2.0),
        "CosineAnnealingLR": lr_scheduler.CosineAnnealingLR,
        "CosineAnnealingWarmRestarts": lambda o, total: lr_scheduler.CosineAnnealingWarmRestarts(o, 2, 2),
        "CyclicLR": lambda o, total: lr_scheduler.CyclicLR(o, 0.001, 0.02, 2, cycle_momentum=_cycles(o)),
        "OneCycleLR": lambda o, total: lr_scheduler.OneCycleLR(o, 0.02, total, cycle_momentum=_cycles(o)),
        # Patience 0 and a threshold that no loss meets: each evaluation lowers the rate.
        "ReduceLROnPlateau": lambda o, total: lr_scheduler.ReduceLROnPlateau(o, factor=0.7, patience=0, threshold=0.5),
        "SWALR": lambda o, total: SWALR(o, 0.005, anneal_epochs=4),
        "ChainedScheduler": chained,
        "SequentialLR": sequential,
        # Schedules made of schedules made of schedules, where torch can step them.
        "chain-then-cosine": lambda o, total: lr_scheduler.SequentialLR(
            o, [chained(o, total), lr_scheduler.CosineAnnealingLR(o, total)], milestones=[4]
        ),
        "chained-sequence": lambda o, total: lr_scheduler.ChainedScheduler(
            [sequential(o, total), lr_scheduler.StepLR(o, 2, 0.9)]
        ),
        "plateau-and-steps": lambda o, total: [
            lr_scheduler.ReduceLROnPlateau(o, factor=0.7, patience=0, threshold=0.5),
            lr_scheduler.StepLR(o, 3, 0.9),
        ],
    }


def _cycles(optimizer) -> bool:
    group = optimizer.param_groups[0]
    return "betas" in group or bool(group.get("momentum"))


SCHEDULES = _make_schedules()
FOLLOW_A_METRIC = {"ReduceLROnPlateau", "plateau-and-steps"}


def sample(index: int, noise: float) -> tuple[Tensor, Tensor]:
    image = torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(index))
    return image + noise, torch.tensor(index % CLASSES)


def drawn() -> float:
    """A number of all three global generators."""
    return 0.01 * (random.gauss(0, 1) + float(np.random.randn()) + float(torch.randn(())))  # noqa: NPY002 - the global generator is what is tested


class Samples(Dataset):
    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int):
        return sample(index, drawn())


class SampleStream(IterableDataset):
    """Without a length and without a state."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = list(range(SAMPLES))
        random.shuffle(order)
        for index in order:
            yield sample(index, drawn())


class StatefulBatches:
    """Remembers where it is, in NumPy's numbers; shuffles with a generator of its own."""

    def __init__(self) -> None:
        self.at = np.int64(0)
        self.generator = np.random.default_rng(3)
        self.order = self.generator.permutation(SAMPLES)

    def __len__(self) -> int:
        return SAMPLES // BATCH

    def __iter__(self):
        while self.at < len(self):
            chosen = self.order[self.at * BATCH : (self.at + 1) * BATCH]
            self.at += 1
            rows = [sample(int(index), drawn()) for index in chosen]
            yield torch.stack([image for image, _ in rows]), torch.stack([label for _, label in rows])
        self.at = np.int64(0)
        self.order = self.generator.permutation(SAMPLES)

    def state_dict(self):
        return {"at": self.at, "order": self.order, "generator": self.generator.bit_generator.state}

    def load_state_dict(self, state):
        self.at, self.order = state["at"], state["order"]
        self.generator.bit_generator.state = state["generator"]


DATA = {
    "map": Samples,
    "iterable": lambda: DataLoader(SampleStream(), batch_size=BATCH),
    "stateful": StatefulBatches,
    "shuffled": lambda: DataLoader(Samples(), batch_size=BATCH, shuffle=True),
    "shuffled-own-generator": lambda: DataLoader(
        Samples(), batch_size=BATCH, shuffle=True, generator=torch.Generator().manual_seed(5)
    ),
    "shuffled-workers": lambda: DataLoader(Samples(), batch_size=BATCH, shuffle=True, num_workers=2),
}
SLOW_DATA = {"shuffled-workers"}


class Killed(BaseException):
    """Ends a run in this process as SIGKILL would: nothing is saved on the way out."""


class SubjectConfig(TrainConfig):
    batch_size: int = BATCH
    steps: int = STEPS
    compile: str = "off"
    deterministic: bool = True
    workers: int = 0
    log_every: int = 1
    prometheus: str = "off"
    csv: bool = False
    checkpoint_minutes: float = 0.0
    eval_every: int = 2
    run_name: str = "subject"


class Subject(Task):
    """`at` is the step of this process at which `stop` happens: TERM, KILL (a real one), or killed (an exception)."""

    config = SubjectConfig
    names: ClassVar[tuple[str, str, str, str]] = ("conv", "AdamW-fused", "none", "map")
    stop: ClassVar[str] = ""
    at: ClassVar[int] = 0

    def __init__(self) -> None:
        self.model_name, self.optimizer_name, self.schedule_name, self.data_name = self.names
        self.started = False
        self.seen = 0

    def model(self, cfg):
        return SPECIAL_MODELS.get(self.optimizer_name, MODELS[self.model_name])()

    def loss(self, model, batch):
        if self.started and model.training and torch.is_grad_enabled():
            self.seen += 1
            if self.seen == self.at:
                self._stop()
        images, labels = batch
        return nn.functional.cross_entropy(model(images), labels)

    def data(self, cfg, split):
        if split == "train":
            return DATA[self.data_name]()
        return Samples() if self.schedule_name in FOLLOW_A_METRIC else None

    def optimizer(self, params, cfg):
        kind, options = OPTIMIZERS[self.optimizer_name]
        listed = list(params)
        groups = [{"params": listed}]
        if self.model_name == "two-groups":
            groups = [{"params": listed[::2]}, {"params": listed[1::2], "lr": 0.003}]
        lr = options.get("lr", 0.01)
        return kind(
            groups,
            **({"lr": lr.clone() if isinstance(lr, Tensor) else lr} | {k: v for k, v in options.items() if k != "lr"}),
        )

    def schedule(self, optimizer, cfg, total_steps):
        self.started = True  # what comes before is the runner's look
        return SCHEDULES[self.schedule_name](optimizer, total_steps)

    def _stop(self) -> None:
        if self.stop == "killed":
            raise Killed
        if self.stop == "TERM" and os.environ.get("RANK", "0") != "0":
            return  # one process hears it, all stop
        os.kill(os.getpid(), getattr(signal, f"SIG{self.stop}"))


def make_subject(names: tuple[str, str, str, str], stop: str = "", at: int = 0) -> type[Subject]:
    return type("Made", (Subject,), {"names": names, "stop": stop, "at": at})


if __name__ == "__main__":
    chosen = tuple(os.environ["SUBJECT"].split("/"))
    run(make_subject(chosen, os.environ.get("STOP", ""), int(os.environ.get("AT", "0"))))
