"""Feature maps are drawn for a trained network, from its checkpoint."""

import pytest
import torch
from devgw_runner import run
from devgw_runner.cli import main
from devgw_runner.feature_maps import FeatureMap, collect_feature_maps, draw_grid, load_image
from devgw_runner.script import find_task
from PIL import Image
from torch import nn


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.png"
    Image.linear_gradient("L").resize((40, 32)).save(path)
    return path


def test_every_convolution_is_drawn_to_png_and_tensorboard(examples, image, paths, tmp_path, capsys):
    script = examples / "small_classifier.py"
    task = find_task(str(script))
    assert run(task, ["--run-name", "tiny", "--steps", "2", "--compile", "off", "--width", "6"]) == 0
    line = ["feature-maps", str(script), "--checkpoint", str(paths.checkpoints), "--image", str(image)]
    assert main([*line, "--width", "6", "--tensorboard", "--output", str(tmp_path / "maps")]) == 0
    names = sorted(path.name for path in (tmp_path / "maps").glob("*.png"))
    assert names == ["00-conv1.png", "01-conv2.png", "02-conv3.png"]
    with Image.open(tmp_path / "maps" / names[1]) as grid:
        assert grid.size[0] >= 4 * 66  # 12 channels in 4 columns
        assert len(set(grid.tobytes())) > 10
    assert list((tmp_path / "maps" / "tensorboard").glob("events*"))
    capsys.readouterr()
    assert main([*line, "--width", "8"]) == 18  # weights of another model
    assert main([*line[:-1], "nowhere.png", "--width", "6"]) == 11
    assert main([*line, "--width", "6", "--size", "big"]) == 2


def test_maps_come_in_the_order_the_layers_ran_and_hooks_are_gone_after():
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 7, 3))
    maps = collect_feature_maps(model, torch.rand(3, 12, 10))
    assert [(found.layer, tuple(found.values.shape)) for found in maps] == [
        ("0", (5, 10, 8)),
        ("2", (7, 8, 6)),
    ]
    assert not model[0]._forward_hooks


def test_an_image_becomes_what_the_first_convolution_takes(image):
    grey = load_image(image, nn.Conv2d(1, 2, 3), None)
    colour = load_image(image, nn.Conv2d(3, 2, 3), (16, 8))
    assert (grey.shape, colour.shape) == ((1, 32, 40), (3, 16, 8))
    assert 0 <= float(grey.min()) < float(grey.max()) <= 1


def test_a_constant_channel_is_drawn_without_a_division_by_zero():
    grid = draw_grid(FeatureMap("flat", torch.ones(3, 4, 4)))
    assert grid.size[1] > 64
