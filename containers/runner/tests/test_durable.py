"""A crash at any moment of a save costs at most the checkpoint that was being made, and leaves nothing half.

The same disk is shown runners with one duty removed each; it must notice every one of them.
"""

import os
from pathlib import Path

import pytest
import torch
from devgw_runner.checkpoint import durable, lineage, store
from devgw_runner.checkpoint.lineage import Branch
from devgw_runner.checkpoint.resume import find_start
from devgw_runner.checkpoint.state import TrainState
from devgw_runner.checkpoint.writer import CheckpointWriter, WriterSettings
from devgw_runner.errors import CheckpointError
from devgw_runner.parallel.world import World
from devgw_runner.sampler import Position
from torch import nn

from crash import ForgetfulDisk, Image

BRANCH = Branch(run="0123456789abcdef", name="01234567")


def make_state() -> TrainState:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return TrainState(model, optimizer, None, torch.amp.GradScaler("cpu", enabled=False), [], Position(0))


def save_under_watch(root: Path, steps: tuple[int, ...], ignores=lambda _path: False) -> list[Image]:
    """Save a checkpoint of each step, keeping one, and return what a crash at each moment would leave."""
    root.mkdir(parents=True)
    disk = ForgetfulDisk(root, ignores)
    state = make_state()
    with disk.watching():
        writer = CheckpointWriter(WriterSettings(root, 1, {}, asynchronous=False, branch=BRANCH), World())
        writer.begin_branch()
        for step in steps:
            state.position = Position(step)
            with torch.no_grad():
                state.model.bias.fill_(step)
            writer.saved_step = -1  # as after a restart, so that a step may be saved again
            writer.save(state, wait=True)
            disk.promise(step)
    return disk.images


def complaint(image: Image, root: Path) -> str:
    """Say what a start after this crash would find wrong, or return an empty string."""
    image.write(root)
    store.sweep_unfinished(root)
    try:
        found = find_start("auto", root).found
    except CheckpointError as exc:
        return f"{image.moment}: {exc.message}"
    step = found.manifest.step if found else -1
    if found and found.passed_over:
        return f"{image.moment}: {found.passed_over[0]}"
    return "" if step >= image.promised else f"{image.moment}: {image.promised} was reported saved, {step} is there"


def complaints(images: list[Image], tmp_path: Path) -> list[str]:
    found = (complaint(image, tmp_path / f"crash-{index}") for index, image in enumerate(images))
    return [text for text in found if text]


@pytest.mark.parametrize("steps", [(1, 2, 3), (2, 2, 2)], ids=["one after another", "the same again"])
def test_a_crash_at_any_moment_leaves_what_was_reported_saved(tmp_path, steps):
    images = save_under_watch(tmp_path / "root", steps)
    assert len(images) > 30
    assert complaints(images, tmp_path) == []


@pytest.mark.parametrize("steps", [(1, 2), (2, 2)], ids=["one after another", "the same again"])
def test_also_where_the_file_system_cannot_exchange_names(tmp_path, monkeypatch, steps):
    monkeypatch.setattr(durable, "_exchange", lambda one, other: False)
    assert complaints(save_under_watch(tmp_path / "root", steps), tmp_path) == []


def seal_in_place(monkeypatch) -> None:
    monkeypatch.setattr(store, "temporary_directory", lambda root, step: root / f"step-{step:08d}")
    monkeypatch.setattr(durable, "put_in_place", lambda temporary, final: durable.sync_directory(final.parent))


def delete_first(monkeypatch) -> None:
    import shutil

    def replace(temporary, final):
        shutil.rmtree(final, ignore_errors=True)
        os.rename(temporary, final)  # noqa: PTH104 - as the real one
        durable.sync_directory(final.parent)

    monkeypatch.setattr(durable, "put_in_place", replace)


def rename_before_sync(monkeypatch) -> None:
    monkeypatch.setattr(durable, "write_file", lambda path, content: path.write_bytes(content))


WITHOUT_SYNC_OF = {
    "anything": lambda path: True,
    "the manifest": lambda path: path.name == store.MANIFEST,
    "trainer files": lambda path: path.name.startswith("trainer-"),
    "tensors": lambda path: path.suffix == ".distcp",
    "torch's metadata": lambda path: ".metadata" in path.name,
    "the checkpoint's directory": lambda path: path.name.startswith(".tmp-step"),
    "the run's directory": lambda path: path.name == "root",
}
IN_ANOTHER_ORDER = {
    "no temporary name": seal_in_place,
    "the old one deleted first": delete_first,
    "names before contents": rename_before_sync,
}


def all_complaints(tmp_path: Path, ignores=lambda _path: False) -> list[str]:
    return [
        text
        for name, steps in (("after", (1, 2)), ("again", (2, 2)))
        for text in complaints(save_under_watch(tmp_path / name / "root", steps, ignores), tmp_path / name)
    ]


@pytest.mark.parametrize("what", WITHOUT_SYNC_OF)
def test_a_runner_that_leaves_out_one_sync_is_caught(tmp_path, what):
    """Otherwise the tests above would prove nothing."""
    assert all_complaints(tmp_path, WITHOUT_SYNC_OF[what])


@pytest.mark.parametrize("mutant", IN_ANOTHER_ORDER)
def test_a_runner_that_renames_or_deletes_in_another_order_is_caught(tmp_path, monkeypatch, mutant):
    IN_ANOTHER_ORDER[mutant](monkeypatch)
    assert all_complaints(tmp_path)


def test_a_step_saved_again_is_there_at_every_moment(tmp_path):
    """The sealed copy goes only when the new one has its name, whatever dies in between."""
    for image in save_under_watch(tmp_path / "root", (5, 5)):
        if image.promised == 5:
            assert any(name.startswith("step-00000005/") for name in image.files), image.moment


def test_the_record_of_branches_is_replaced_as_a_whole(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    disk = ForgetfulDisk(root)
    with disk.watching():
        for name in ("aaaaaaaa", "bbbbbbbb"):
            lineage.record(root, Branch(run="r", name=name))
    seen = []
    for index, image in enumerate(disk.images):
        image.write(tmp_path / f"crash-{index}")
        branch = lineage.read_current(tmp_path / f"crash-{index}") if (tmp_path / f"crash-{index}").is_dir() else None
        seen.append(branch.name if branch else None)
    assert set(seen) == {None, "aaaaaaaa", "bbbbbbbb"}
    assert lineage.read_current(root).name == "bbbbbbbb"
