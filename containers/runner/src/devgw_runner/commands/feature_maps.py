"""`devgw-run feature-maps train.py --checkpoint … --image …`: draw what the layers see."""

import os
from collections.abc import Sequence
from pathlib import Path

from devgw_runner.checkpoint.export import read_weights
from devgw_runner.checkpoint.state import check_same_model
from devgw_runner.commands.arguments import CommandParser
from devgw_runner.commands.checkpoints import resolve_checkpoint
from devgw_runner.config_sources import read_config
from devgw_runner.errors import UsageError
from devgw_runner.feature_maps import collect_feature_maps, load_image, write_grids
from devgw_runner.script import find_task


def run(arguments: Sequence[str]) -> int:
    parser = CommandParser("feature-maps", "draw a convolutional network's intermediate layers for one image")
    parser.add_argument("script", help="the training script, or package.module:Task")
    parser.add_argument("--checkpoint", type=Path, required=True, help="one checkpoint, or a run's directory (newest)")
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--size", help="HEIGHTxWIDTH to scale the image to; its own size by default")
    parser.add_argument("--output", type=Path, default=Path("feature-maps"), metavar="DIRECTORY")
    parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard images as well")
    options, task_arguments = parser.parse_known_args(arguments)
    task_type = find_task(options.script)
    model = task_type().model(read_config(task_type.config, task_arguments, os.environ))
    weights = read_weights(resolve_checkpoint(options.checkpoint))
    check_same_model({name: list(value.shape) for name, value in weights.items()}, model)
    model.load_state_dict(weights, strict=False)  # extra state is no tensor; the tensors were compared
    image = load_image(options.image, model, _size(options.size))
    paths = write_grids(collect_feature_maps(model, image), options.output, tensorboard=options.tensorboard)
    for path in paths:
        print(path)
    return 0


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, cross, width = text.partition("x")
    if not (cross and height.isdigit() and width.isdigit()):
        raise UsageError(f"--size {text} is not HEIGHTxWIDTH", "for example --size 32x32")
    return int(height), int(width)
