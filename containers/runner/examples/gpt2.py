"""GPT-2 124M (Radford et al. 2019), written from the paper's description.

    devgw-run gpt2.py --batch-size 16 --steps 200                # random tokens, for speed
    devgw-run gpt2.py --data-dir /data/tokens --steps 20000      # train.bin and val.bin, uint16 token ids

12 layers, 12 heads, width 768, context 1024, learned positions, pre-norm, tied embedding.
855 MFLOP per token by the convention 6N + 12LTE.
"""

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's usual name
from devgw_runner import Task, TrainConfig, run
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import Dataset

VOCABULARY = 50_304  # 50 257 padded to a multiple of 64, for aligned products


class Block(nn.Module):
    """Attention and a four times wider layer, each on the normalised residual stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.wide = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        shape = (batch, time, 3, self.heads, width // self.heads)
        q, k, v = self.qkv(self.norm1(x)).view(shape).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, time, width))
        return x + self.narrow(F.gelu(self.wide(self.norm2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self, layers: int, heads: int, width: int, context: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                into_stream = name.endswith(("out.weight", "narrow.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers) if into_stream else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.places.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.tokens.weight)  # the embedding is tied to the head


class Tokens(Dataset[Tensor]):
    """Windows of `context + 1` token ids, from a flat file of uint16 or at random."""

    def __init__(self, file: Path | None, context: int) -> None:
        self.context = context
        random_ids = np.random.default_rng(0).integers(0, 50_257, 4_000_000, dtype=np.uint16)
        self.ids = np.memmap(file, dtype=np.uint16, mode="r") if file else random_ids

    def __len__(self) -> int:
        return (len(self.ids) - 1) // self.context

    def __getitem__(self, index: int) -> Tensor:
        begin = index * self.context
        return torch.from_numpy(self.ids[begin : begin + self.context + 1].astype(np.int64))


class GptConfig(TrainConfig):
    batch_size: int = 16
    learning_rate: float = 6e-4
    weight_decay: float = 0.1
    grad_clip: float = 1.0
    layers: int = 12
    heads: int = 12
    width: int = 768
    context: int = 1024


class LanguageModel(Task[Tensor]):
    config = GptConfig

    def __init__(self) -> None:
        self.flops_per_token = 0.0

    def model(self, cfg: GptConfig) -> nn.Module:
        model = Gpt(cfg.layers, cfg.heads, cfg.width, cfg.context)
        parameters = sum(p.numel() for p in model.parameters()) - model.places.weight.numel()
        self.flops_per_token = 6 * parameters + 12 * cfg.layers * cfg.width * cfg.context
        return model

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        logits = model(batch[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    def data(self, cfg: GptConfig, split: str) -> Dataset[Tensor] | None:
        if cfg.data_dir is not None:
            return Tokens(cfg.data_dir / f"{split}.bin", cfg.context)
        return Tokens(None, cfg.context) if split == "train" else None

    def schedule(self, optimizer: Optimizer, cfg: GptConfig, total_steps: int) -> LRScheduler:  # noqa: ARG002 - part of the contract
        warm = max(1, total_steps // 50)

        def share(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warm) / max(1, total_steps - warm)))

        return LambdaLR(optimizer, share)

    def flops_per_sample(self, batch: Tensor) -> float:
        return self.flops_per_token * (batch.shape[1] - 1)


class LanguageModelWithDecayGroups(LanguageModel):
    """Weight decay on matrices only, the usual choice; as the task's own optimizer it is not captured."""

    def optimizer(self, params: object, cfg: GptConfig) -> Optimizer:
        known = list(params)
        groups = [
            {"params": [p for p in known if p.dim() >= 2], "weight_decay": cfg.weight_decay},
            {"params": [p for p in known if p.dim() < 2], "weight_decay": 0.0},
        ]
        return AdamW(groups, lr=cfg.learning_rate, betas=(0.9, 0.95), fused=True)


if __name__ == "__main__":
    run(LanguageModelWithDecayGroups)
