"""A task's own loader goes on at the very batch, or it is said or refused that it cannot."""

import itertools
import random
from typing import ClassVar

import numpy as np
import pytest
import torch
from devgw_runner import Task, TrainConfig, run
from devgw_runner.errors import DataError
from devgw_runner.own_loader import OwnLoader
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

LENGTH = 5


def batch_of(number: float) -> dict[str, torch.Tensor]:
    return {"x": torch.full((4, 3), float(number)), "y": torch.zeros(4)}


class Remembering:
    """With a state of NumPy's numbers, a position that goes on in the middle of a pass."""

    def __init__(self) -> None:
        self.at = np.int64(0)

    def __len__(self) -> int:
        return LENGTH

    def __iter__(self):
        while self.at < LENGTH:
            self.at += 1
            yield batch_of(self.at - 1)
        self.at = np.int64(0)

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class Counting:
    """Shuffles by an epoch that it counts itself."""

    def __init__(self) -> None:
        self.epoch = 0

    def __len__(self) -> int:
        return LENGTH

    def __iter__(self):
        order = list(range(LENGTH))
        random.Random(self.epoch).shuffle(order)
        self.epoch += 1
        yield from (batch_of(number) for number in order)


class Unrepeatable:
    """Nobody knows what comes."""

    def __len__(self) -> int:
        return LENGTH

    def __iter__(self):
        return (batch_of(random.SystemRandom().random()) for _ in range(LENGTH))


class GeneratorOfItsOwn:
    """Goes on with one generator from pass to pass."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(1)

    def __iter__(self):
        yield from (batch_of(number) for number in self.generator.random(LENGTH))


class EpochDataset(Dataset):
    """Wants to be told the epoch, as torch's DistributedSampler and others do."""

    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 4 * LENGTH

    def __getitem__(self, index: int):
        return {"x": torch.full((3,), float(100 * self.epoch + index)), "y": torch.zeros(())}


def shuffled_loader():
    data = TensorDataset(torch.arange(60.0).reshape(20, 3))
    return DataLoader(
        data, batch_size=4, shuffle=True, collate_fn=lambda rows: {"x": torch.stack([x for (x,) in rows])}
    )


KINDS = {
    "remembering": Remembering,
    "counting": Counting,
    "own generator": GeneratorOfItsOwn,
    "shuffled": shuffled_loader,
    "told the epoch": lambda: DataLoader(EpochDataset(), batch_size=4, shuffle=True),
}


def take(loader: OwnLoader, count: int) -> list[float]:
    return [float(batch["x"].sum()) for batch in itertools.islice(loader.batches(), count)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stopped", [0, 1, 4, 5, 6, 9, 10, 11, 14])
def test_a_loader_goes_on_at_every_boundary(kind, stopped):
    """At the start, in the middle, before and after the end of a pass, in later passes; the look costs no batch."""
    whole = OwnLoader(KINDS[kind](), seed=3)
    whole.look()
    expected = take(whole, stopped + 8)

    first = OwnLoader(KINDS[kind](), seed=3)
    first.look()
    assert take(first, stopped) == expected[:stopped]
    state = first.state_dict()

    torch.manual_seed(77)
    second = OwnLoader(KINDS[kind](), seed=3)
    second.look()
    second.load_state_dict(state)
    said: list[str] = []
    second.begin(said.append, strict=True)
    assert take(second, 8) == expected[stopped:]
    assert said == []


@pytest.mark.parametrize("stopped", [1, 4, 5, 6, 11])
def test_an_order_that_cannot_be_repeated_is_said_or_refused(stopped):
    first = OwnLoader(Unrepeatable(), seed=0)
    first.look()
    take(first, stopped)
    for strict in (False, True):
        second = OwnLoader(Unrepeatable(), seed=0)
        second.look()
        second.load_state_dict(first.state_dict())
        said: list[str] = []
        if strict:
            with pytest.raises(DataError, match="cannot be replayed: its first batch is not what it was"):
                second.begin(said.append, strict=True)
        else:
            second.begin(said.append, strict=False)
            assert any("not bit-exact" in text for text in said)
            assert second.cursor.batches in {stopped % LENGTH, LENGTH, 0}


def test_persistent_processes_are_said():
    """Their random state is theirs; a new one does not begin where they were."""

    def make():
        data = DataLoader(EpochDataset(), batch_size=4, num_workers=1, persistent_workers=True)
        loader = OwnLoader(data, seed=0)
        loader.look()
        return loader

    first, second = make(), make()
    take(first, 7)
    second.load_state_dict(first.state_dict())
    said: list[str] = []
    second.begin(said.append, strict=False)
    second.close()
    assert "its processes persist" in said[0]


def test_an_iterator_is_gone_through_once():
    loader = OwnLoader((batch_of(number) for number in range(3)), seed=0)
    loader.look()
    stream = loader.batches()
    assert [float(next(stream)["x"][0, 0]) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match="an iterator that ended after 3 batches"):
        next(stream)


def test_a_loader_that_yields_nothing_is_refused():
    with pytest.raises(DataError, match="yielded no batch"):
        OwnLoader([], seed=0).look()


def test_loading_and_training_do_not_share_randomness():
    """What the loader draws does not move dropout, and dropout does not move the loader."""
    before = torch.get_rng_state(), random.getstate()
    loader = OwnLoader(shuffled_loader(), seed=0)
    loader.look()
    first = take(loader, 7)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    again = OwnLoader(shuffled_loader(), seed=0)
    again.look()
    stream = again.batches()
    second = []
    for _ in range(7):
        torch.rand(3)
        second.append(float(next(stream)["x"].sum()))
    assert first == second


class OfLoader(Task):
    kind: ClassVar[type] = Remembering
    used: ClassVar[list[int]] = []

    def model(self, cfg):
        return nn.Linear(3, 1)

    def loss(self, model, batch):
        if self.started:
            OfLoader.used.append(int(batch["x"][0, 0]))
        return (model(batch["x"]).squeeze(1) - batch["y"]).pow(2).mean()

    started = False

    def schedule(self, optimizer, cfg, total_steps):
        self.started = True

    def data(self, cfg, split):
        return self.kind() if split == "train" else None


@pytest.mark.parametrize("stopped", [1, 4, 5, 6, 10])
def test_a_run_with_a_stateful_loader_sees_every_batch_once(stopped, tmp_path, capsys):
    """It used to lose its first batch to the look, and to end for ever with code 11 at a pass's end."""
    OfLoader.used = []
    flags = ["--run-name", "loader", "--compile", "off", "--deterministic", "--batch-size", "4", "--micro-batch", "4"]
    assert run(OfLoader, [*flags, "--steps", str(stopped)]) == 0
    assert run(OfLoader, [*flags, "--steps", "12"]) == 0, capsys.readouterr().err
    assert OfLoader.used == [number % LENGTH for number in range(12)]


def test_a_run_whose_loader_cannot_be_replayed_says_so_and_is_refused_when_deterministic(paths, capsys):
    kind = type("OfUnrepeatable", (OfLoader,), {"kind": Unrepeatable})
    flags = ["--run-name", "tiny", "--compile", "off"]
    assert run(kind, [*flags, "--steps", "3"]) == 0
    assert run(kind, [*flags, "--steps", "5"]) == 0
    assert any("cannot be replayed" in event["text"] for event in paths.events("not-exact"))
    capsys.readouterr()
    assert run(kind, [*flags, "--steps", "7", "--deterministic"]) == 11
    assert "devgw-run: hint: give it state_dict" in capsys.readouterr().err


def test_a_state_that_cannot_be_saved_is_refused_at_the_first_save(capsys):
    class Odd(Remembering):
        def state_dict(self):
            return {"at": self.at, "file": object()}

    kind = type("OfOdd", (OfLoader,), {"kind": Odd})
    assert run(kind, ["--run-name", "tiny", "--compile", "off", "--steps", "3"]) == 10
    assert "the state of the loader holds a object at inner.file" in capsys.readouterr().err


class Rows(Task):
    """640 rows whose numbers are noted as they are used."""

    rows: ClassVar[list[int]] = []
    own_batch: ClassVar[int] = 0

    def model(self, cfg):
        return nn.Linear(1, 1)

    def loss(self, model, batch):
        if self.started:
            Rows.rows += [int(row) for row in batch[0].flatten()]
        return model(batch[0]).pow(2).mean()

    started = False

    def schedule(self, optimizer, cfg, total_steps):
        self.started = True

    def data(self, cfg, split):
        if split != "train":
            return None
        data = TensorDataset(torch.arange(640.0).unsqueeze(1))
        return DataLoader(data, batch_size=self.own_batch) if self.own_batch else data


def train_rows(epochs: int, batch: int, *flags: str, own: bool = False, steps: int = 0) -> int:
    kind = type("Rows", (Rows,), {"own_batch": batch if own else 0})
    end = ["--steps", str(steps)] if steps else ["--epochs", str(epochs)]
    size = [] if own else ["--batch-size", str(batch)]
    return run(kind, ["--run-name", "tiny", "--compile", "off", *end, *size, *flags])


@pytest.mark.parametrize("own", [False, True], ids=["data set", "own loader"])
@pytest.mark.parametrize(("first", "second"), [(8, 16), (16, 8), (64, 10)])
def test_epochs_are_exact_when_the_batch_size_changes_between_them(first, second, own, paths, capsys):
    Rows.rows = []
    assert train_rows(2, first, own=own) == 0
    assert train_rows(4, second, own=own) == 0, capsys.readouterr().err
    assert sorted(Rows.rows) == sorted([*range(640)] * 4)
    said = [event["text"] for event in paths.events("not-exact")]
    assert any(f"a step takes {second} samples, {first} before" in text for text in said)
    assert f"{1280 // second} steps are left" in " ".join(said)


@pytest.mark.parametrize("own", [False, True], ids=["data set", "own loader"])
def test_a_changed_batch_size_goes_on_at_the_same_sample(own, paths):
    """In the middle of an epoch: 3 steps of 24, then steps of 8; 72 is a multiple of it."""
    Rows.rows = []
    assert train_rows(0, 24, own=own, steps=3) == 0
    assert len(Rows.rows) == 72
    assert train_rows(1, 8, own=own) == 0
    assert sorted(Rows.rows) == [*range(640)]


def test_a_remainder_that_fills_no_batch_any_more_is_left_out(paths):
    """600 samples used, 40 left: with steps of 64 the epoch is over, as --last-batch drop says."""
    Rows.rows = []
    assert train_rows(0, 60, steps=10) == 0
    assert train_rows(2, 64) == 0
    assert len(Rows.rows) == 600 + 640
    assert len(set(Rows.rows[:600])) == 600
    assert sorted(Rows.rows[600:]) == [*range(640)]
    assert TrainConfig.model_fields["last_batch"].default == "drop"
