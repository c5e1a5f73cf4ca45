"""Find the checkpoint to continue from, and bring a run back to it.

A corrupt newest checkpoint is passed over for an older one, and that is said.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from devgw_runner.checkpoint import store
from devgw_runner.checkpoint.state import TrainState, check_same_model, load_tensors, load_trainer
from devgw_runner.errors import CheckpointError
from devgw_runner.parallel.world import World


@dataclass(frozen=True)
class Found:
    """A verified checkpoint, and what was said about those that were passed over."""

    path: Path
    manifest: store.Manifest
    passed_over: tuple[str, ...] = ()

    def note(self) -> str:
        return (
            f"{self.path.name} is the newest usable checkpoint"
            if not self.passed_over
            else (f"{self.path.name}, because {len(self.passed_over)} newer cannot be used")
        )


def find_checkpoint(wish: str, root: Path) -> Found | None:
    """Return the checkpoint that `--resume` means: off, auto, or a path.

    Raises:
        CheckpointError: the named one is unusable, or there are some and all are.
    """
    if wish == "off":
        return None
    if wish != "auto":
        path = Path(wish)
        if not path.is_dir():
            raise CheckpointError(
                f"there is no checkpoint at {wish}", "'ls' the checkpoint directory, or --resume auto"
            )
        return Found(path, store.verify(path))
    return _newest_usable(root)


def _newest_usable(root: Path) -> Found | None:
    complaints: list[str] = []
    for path in store.list_checkpoints(root):
        try:
            return Found(path, store.verify(path), tuple(complaints))
        except CheckpointError as exc:
            complaints.append(exc.message)
    if complaints:
        raise CheckpointError(
            f"none of {len(complaints)} checkpoints can be used; {complaints[0]}",
            "--resume off starts anew and leaves them where they are",
        )
    return None


def restore(state: TrainState, found: Found, world: World) -> str | None:
    """Bring `state` back to the checkpoint, and return a warning if that could not be exact.

    Raises:
        OtherModelError: the checkpoint is of another model.
        CheckpointError: its files cannot be read.
    """
    check_same_model(found.manifest.model, state.model)
    load_tensors(state, found.path, distributed=world.is_distributed)
    own = found.path / f"trainer-{world.rank}.pt"
    same_world = found.manifest.world == world.size
    source = own if own.is_file() else found.path / "trainer-0.pt"
    saved = torch.load(source, weights_only=True, map_location="cpu")
    load_trainer(state, saved, with_randomness=own.is_file() and same_world)
    if same_world:
        return None
    return f"the checkpoint was made by {found.manifest.world} processes, these are {world.size}: not bit-exact"
