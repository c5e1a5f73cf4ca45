"""Draw what a convolutional network's layers see in one image: a PNG grid per layer, and TensorBoard images.

The forward pass is eager and without gradients, with hooks on the uncompiled module: hooks added after
compilation are ignored or break graphs (pytorch/pytorch#117758).
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, UnidentifiedImageError
from torch import Tensor, nn

from devgw_runner.errors import DataError, StorageError, TaskError, storage_error
from devgw_runner.metrics.sinks import open_summary_writer

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
LARGEST_GRID = 64  # channels drawn per layer
TILE_PIXELS = 64
GAP_PIXELS = 2
TITLE_PIXELS = 14
MODE_OF_CHANNELS = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class FeatureMap:
    """The output of one layer for one image: (channels, height, width)."""

    layer: str
    values: Tensor


def load_image(path: Path, model: nn.Module, size: tuple[int, int] | None) -> Tensor:
    """Read an image as the model's first convolution expects it: (1, channels, height, width), in [0, 1].

    Raises:
        DataError: the file is no image.
        TaskError: the model has no convolution, or one that no image fits.
    """
    first = next((module for module in model.modules() if isinstance(module, CONVOLUTIONS)), None)
    if first is None:
        raise TaskError("the model has no convolution to draw", "feature maps are for convolutional networks")
    mode = MODE_OF_CHANNELS.get(first.in_channels)
    if mode is None:
        raise TaskError(
            f"the first convolution takes {first.in_channels} channels, an image has 1 or 3",
            "draw another model",
        )
    try:
        image = Image.open(path).convert(mode)
    except (OSError, UnidentifiedImageError) as exc:
        raise DataError(f"cannot read {path} as an image", "give a PNG or JPEG with --image") from exc
    if size is not None:
        image = image.resize((size[1], size[0]))
    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255.0)
    return pixels.unsqueeze(0) if mode == "L" and pixels.dim() == 2 else pixels.permute(2, 0, 1).contiguous()


def collect_feature_maps(model: nn.Module, image: Tensor) -> list[FeatureMap]:
    """Run one eager forward pass and return the output of every convolution in the order they ran."""
    found: list[FeatureMap] = []

    def hook(name: str) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            found.append(FeatureMap(name, output.detach()[0].float().cpu()))

        return keep

    handles = [
        module.register_forward_hook(hook(name))
        for name, module in model.named_modules()
        if isinstance(module, CONVOLUTIONS)
    ]
    model.eval()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            model(image.unsqueeze(0))
    finally:
        for handle in handles:
            handle.remove()
    return found


def draw_grid(feature_map: FeatureMap) -> Image.Image:
    """Draw up to 64 channels as grey tiles, each stretched to its own range, under the layer's name."""
    values = feature_map.values[:LARGEST_GRID]
    columns = math.ceil(math.sqrt(len(values)))
    rows = math.ceil(len(values) / columns)
    cell = TILE_PIXELS + GAP_PIXELS
    canvas = Image.new("L", (max(columns * cell, 160), rows * cell + TITLE_PIXELS), color=255)
    channels, height, width = feature_map.values.shape
    ImageDraw.Draw(canvas).text((1, 1), f"{feature_map.layer}  {channels}x{height}x{width}", fill=0)
    for index, channel in enumerate(values):
        tile = Image.fromarray(_stretch(channel)).resize((TILE_PIXELS, TILE_PIXELS), Image.Resampling.NEAREST)
        canvas.paste(tile, (index % columns * cell, index // columns * cell + TITLE_PIXELS))
    return canvas


def write_grids(maps: list[FeatureMap], directory: Path, *, tensorboard: bool) -> list[Path]:
    """Write one PNG per layer, and with `tensorboard` the same images as events; return the PNGs.

    Raises:
        StorageError: the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        paths = []
        for number, feature_map in enumerate(maps):
            path = directory / f"{number:02d}-{feature_map.layer.replace('.', '-') or 'model'}.png"
            draw_grid(feature_map).save(path)
            paths.append(path)
    except FileExistsError as exc:
        raise StorageError(f"{directory} is a file", "name a directory with --output") from exc
    except OSError as exc:
        raise storage_error(exc, "writing feature maps") from exc
    if tensorboard:
        _write_events(maps, directory)
    return paths


def _write_events(maps: list[FeatureMap], directory: Path) -> None:
    writer = open_summary_writer(directory / "tensorboard")
    for feature_map in maps:
        grid = np.asarray(draw_grid(feature_map))[None, :, :]
        writer.add_image(f"feature-maps/{feature_map.layer}", grid, dataformats="CHW")
    writer.close()


def _stretch(channel: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    low, high = float(channel.min()), float(channel.max())
    scaled = (channel - low) / (high - low) if high > low else torch.zeros_like(channel)
    return (scaled * 255).byte().numpy()
