"""Find the checkpoint to continue from, and bring a run back to it.

A corrupt newest checkpoint is passed over for an older one, and that is said.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from devgw_runner.checkpoint import store
from devgw_runner.checkpoint.state import Conditions, TrainState, check_same_model, load_tensors, load_trainer
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


def restore(state: TrainState, found: Found, world: World, made: Mapping[str, Any]) -> list[str]:
    """Bring `state` back to the checkpoint, and return why that could not be exact, nothing if it is.

    `made` says how this run is made: its device, parallelism and memory format.

    Raises:
        OtherModelError: the checkpoint is of another model.
        CheckpointError: its files cannot be read, or a state cannot come back as it was saved.
    """
    manifest = found.manifest
    check_same_model(manifest.model, state.model)
    device = torch.device(made.get("device", "cpu"))
    there = {"memory_format": manifest.numerics.get("memory_format")} | manifest.made
    differs = {name for name, value in made.items() if name in there and there[name] != value}
    now = Conditions(
        device=device,
        same_device=manifest.version > 1 and "device" not in differs,
        same_layout=manifest.version > 1 and not differs & {"memory_format", "parallel"},
        same_world=manifest.world == world.size,
    )
    own = found.path / f"trainer-{world.rank}.pt"
    source = own if own.is_file() and now.same_world else found.path / "trainer-0.pt"
    saved = torch.load(source, weights_only=True, map_location=_placing(device))
    load_tensors(state, found.path, saved, now)
    load_trainer(state, saved, with_randomness=now.same_world)
    reasons = [f"{name} is {made[name]}, was {there[name]}: not bit-exact" for name in sorted(differs)]
    if manifest.world != world.size:
        reasons.append(f"the checkpoint was made by {manifest.world} processes, these are {world.size}: not bit-exact")
    return reasons


def _placing(device: torch.device) -> Callable[[Any, str], Any]:
    """Put what was on a device onto the run's; what was in host memory stays there."""

    def place(storage: Any, location: str) -> Any:
        return storage if location == "cpu" or device.type == "cpu" else storage.to(device=device)

    return place
