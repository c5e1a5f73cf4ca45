"""ResNet-50 v1.5 (He et al. 2015, arXiv:1512.03385; stride in the 3x3 convolution), without torchvision.

    devgw-run resnet50.py --batch-size 256 --steps 500             # synthetic images, for speed
    devgw-run resnet50.py --data-dir /data/imagenet --epochs 90    # train/<class>/*.jpg and val/<class>/*.jpg

24.3 GFLOP per image and training step, computed from the layers at 224x224.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's usual name
from devgw_runner import LossOut, Task, TrainConfig, run
from PIL import Image
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from torch.utils.data import Dataset

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, stride of the first
EXPANSION = 4
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's training images


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Bottleneck(nn.Module):
    """1x1 down, 3x3 with the stride, 1x1 up, and the shortcut around them."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.down = conv_norm(inputs, width, 1)
        self.middle = conv_norm(width, width, 3, stride)
        self.up = conv_norm(width, outputs, 1)
        reshaped = stride != 1 or inputs != outputs
        self.shortcut = conv_norm(inputs, outputs, 1, stride) if reshaped else nn.Identity()
        nn.init.zeros_(self.up[1].weight)  # each block starts as the identity: arXiv:1706.02677

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.down(x))
        y = F.relu(self.middle(y))
        return F.relu(self.up(y) + self.shortcut(x))


class ResNet50(nn.Module):
    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = conv_norm(3, 64, 7, stride=2)
        blocks, inputs = [], 64
        for width, count, stride in STAGES:
            for index in range(count):
                blocks.append(Bottleneck(inputs, width, stride if index == 0 else 1))
                inputs = width * EXPANSION
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(images)), 3, stride=2, padding=1)
        return self.head(self.blocks(x).mean(dim=(2, 3)))


class SyntheticImages(Dataset[tuple[Tensor, int]]):
    """The same random image under every index: what is measured is the training, not the loading."""

    def __init__(self, size: int, classes: int) -> None:
        self.image, self.classes = torch.randn(3, size, size), classes

    def __len__(self) -> int:
        return 1_281_167

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.image, index % self.classes


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """Images in one directory per class; random crop and flip in training, centre crop in validation."""

    def __init__(self, root: Path, size: int, *, augment: bool) -> None:
        self.classes = sorted(path.name for path in root.iterdir() if path.is_dir())
        self.files = [(file, k) for k, name in enumerate(self.classes) for file in sorted((root / name).iterdir())]
        self.size, self.augment = size, augment

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.files[index]
        with Image.open(path) as image:
            pixels = np.asarray(self._crop(image.convert("RGB")), dtype=np.float32) / 255
        normal = (pixels - np.float32(MEAN)) / np.float32(DEVIATION)
        tensor = torch.from_numpy(normal).permute(2, 0, 1)
        return (tensor.flip(2) if self.augment and torch.rand(()) < 0.5 else tensor), label

    def _crop(self, image: Image.Image) -> Image.Image:
        share = float(torch.empty(()).uniform_(0.3, 1.0).sqrt()) if self.augment else 0.875
        side = round(min(image.size) * share)
        free_x, free_y = image.width - side, image.height - side
        move = torch.rand(2).tolist() if self.augment else (0.5, 0.5)
        left, top = round(free_x * move[0]), round(free_y * move[1])
        return image.resize((self.size, self.size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))


class ImagesConfig(TrainConfig):
    learning_rate: float = 0.1
    weight_decay: float = 5e-5
    image_size: int = 224
    classes: int = 1000


class Images(Task[tuple[Tensor, Tensor]]):
    config = ImagesConfig

    def model(self, cfg: ImagesConfig) -> nn.Module:
        return ResNet50(cfg.classes)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> LossOut:
        images, labels = batch
        logits = model(images)
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        return LossOut(F.cross_entropy(logits, labels, label_smoothing=0.1), {"accuracy": accuracy})

    def data(self, cfg: ImagesConfig, split: str) -> Dataset[tuple[Tensor, int]] | None:
        if cfg.data_dir is not None:
            return ImageFolder(cfg.data_dir / split, cfg.image_size, augment=split == "train")
        return SyntheticImages(cfg.image_size, cfg.classes) if split == "train" else None

    def schedule(self, optimizer: Optimizer, cfg: ImagesConfig, total_steps: int) -> LRScheduler:
        return OneCycleLR(optimizer, cfg.learning_rate, total_steps, pct_start=0.05, cycle_momentum=False)


class ImagesWithSgd(Images):
    """The published recipe's optimizer; as the task's own it is not captured in graphs (see the plan)."""

    def optimizer(self, params: object, cfg: ImagesConfig) -> Optimizer:
        return SGD(params, cfg.learning_rate, momentum=0.9, weight_decay=cfg.weight_decay, fused=True)


if __name__ == "__main__":
    run(ImagesWithSgd)
