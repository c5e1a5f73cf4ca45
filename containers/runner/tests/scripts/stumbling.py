"""Tasks that go wrong in one way each, chosen by name: what bad input looks like from a user's side."""

from typing import ClassVar

import torch
from devgw_runner import LossOut, Task
from tiny import CLASSES, FEATURES, Tiny, TinyConfig
from torch import nn
from torch.utils.data import TensorDataset


class WithoutLoss(Task):
    config = TinyConfig
    model = Tiny.model
    data = Tiny.data


class VectorLoss(Tiny):
    def loss(self, model, batch):
        return model(batch[0])[:, 0]


class DetachedLoss(Tiny):
    def loss(self, model, batch):
        return super().loss(model, batch).loss.detach()


class NumberLoss(Tiny):
    def loss(self, model, batch):
        return 1.0


class VectorMetric(Tiny):
    def loss(self, model, batch):
        correct = (model(batch[0]).argmax(1) == batch[1]).float()
        return LossOut(super().loss(model, batch).loss, {"accuracy": correct})


class NumberMetric(Tiny):
    def loss(self, model, batch):
        return LossOut(super().loss(model, batch).loss, {"accuracy": 0.5})


class NumberEvaluated(Tiny):
    def metrics(self, model, batch):
        return {"f1": 0.5}


class NoModule(Tiny):
    def model(self, cfg):
        return "resnet50"


class WordBatches(Tiny):
    def data(self, cfg, split):
        return ["one", "two", "three"] * 10 if split == "train" else None


class EmptyData(Tiny):
    def data(self, cfg, split):
        return TensorDataset(torch.zeros(0, FEATURES), torch.zeros(0, dtype=torch.long))


class EmptyVal(Tiny):
    def data(self, cfg, split):
        return super().data(cfg, split) if split == "train" else TensorDataset(torch.zeros(0, FEATURES))


class NoData(Tiny):
    def data(self, cfg, split):
        return None


class BecomesNan(Tiny):
    """The loss of training step 11 and later is not a number, once training has begun."""

    calls = 0

    def loss(self, model, batch):
        out = super().loss(model, batch)
        if model.training:
            BecomesNan.calls += 1
        return out._replace(loss=out.loss * float("nan")) if BecomesNan.calls == 12 else out


class Hungry(Tiny):
    """Runs out of memory above 3 samples, as a GPU would."""

    largest = 3
    sizes: ClassVar[list[int]] = []

    def loss(self, model, batch):
        size = len(batch[1])
        if model.training and size > self.largest and torch.is_grad_enabled() and type(self).armed:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        type(self).sizes.append(size)
        return super().loss(model, batch)

    armed = False

    def schedule(self, optimizer, cfg, total_steps):
        type(self).armed = True  # called after the first look, before the first step
        return super().schedule(optimizer, cfg, total_steps)


class Wider(Tiny):
    """Another model under the same name."""

    def model(self, cfg):
        return nn.Sequential(nn.Linear(FEATURES, CLASSES + 1))
