"""A small transformer of which several processes share the layers, for 2-D parallelism.

WRONG        names a mistake
THREADS=DIR  write there, at each process's end, which of gloo's threads still live
"""

import atexit
import os
from pathlib import Path

import torch
from devgw_runner import Task, TrainConfig, run
from torch import nn
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel
from torch.utils.data import Dataset

WORDS, WIDTH, HEADS, LENGTH = 17, 16, 4, 6
WRONG = os.environ.get("WRONG", "")


def say_threads() -> None:
    names = [each.read_text().strip() for each in Path("/proc/self/task").glob("*/comm")]
    said = Path(os.environ["THREADS"]) / f"threads-{os.environ['RANK']}"
    said.write_text("\n".join(name for name in names if "gloo" in name))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        # No biases: attention does not change with the key's, whose gradient is rounding alone.
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        # As many heads as are here: all of them, or this process's share.
        query, key, value = (
            layer(x).unflatten(-1, (-1, WIDTH // HEADS)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Attention()
        inner = 4 * WIDTH + (WRONG == "uneven")
        self.up, self.down = nn.Linear(WIDTH, inner), nn.Linear(inner, WIDTH)
        self.drop = nn.Dropout(float(os.environ.get("DROPOUT", "0")))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.drop(self.down(torch.relu(self.up(self.norm2(x)))))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS)
        if WRONG == "beside":
            self.scale = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        x = self.words(x) + self.places(torch.arange(LENGTH))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Sentences(Dataset):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int):
        words = torch.randint(WORDS, (LENGTH + 1,), generator=torch.Generator().manual_seed(index))
        return words[:-1], words[1:]


class SharingConfig(TrainConfig):
    batch_size: int = 4
    deterministic: bool = True
    log_every: int = 1
    workers: int = 0


class Sharing(Task):
    config = SharingConfig

    def model(self, cfg):
        return Transformer()

    def loss(self, model, batch):
        words, following = batch
        return nn.functional.cross_entropy(model(words).flatten(0, 1), following.flatten())

    def data(self, cfg, split):
        return Sentences()

    def tensor_plan(self, model):
        plan = {
            "blocks.*.attention.out": RowwiseParallel(),
            "blocks.*.up": ColwiseParallel(),
            "blocks.*.down": RowwiseParallel(),
        }
        plan |= {f"blocks.*.attention.{name}": ColwiseParallel() for name in ("query", "key", "value")}
        return plan


if __name__ == "__main__":
    if "THREADS" in os.environ:
        atexit.register(say_threads)
    run(Sharing)
