"""Find the checkpoint to continue from, and bring a run back to it.

A corrupt newest checkpoint is passed over for an older one, and that is said.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from devgw_runner.checkpoint import lineage, store
from devgw_runner.checkpoint.hyperparameters import check_same_optimizer
from devgw_runner.checkpoint.lineage import Branch
from devgw_runner.checkpoint.state import Conditions, TrainState, check_same_model, load_tensors, load_trainer
from devgw_runner.checkpoint.task_state import restore_task
from devgw_runner.errors import CheckpointError
from devgw_runner.parallel.world import World
from devgw_runner.sampler import Position


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


@dataclass(frozen=True)
class Start:
    """Where a run begins: the checkpoint, if any, the branch that it writes, and what to say about that."""

    found: Found | None
    branch: Branch
    note: str = ""

    @property
    def position(self) -> Position:
        """Where the checkpoint was made; the beginning without one."""
        if self.found is None:
            return Position()
        there = self.found.manifest.position
        if not there:  # the first format has it in the trainer's file only
            there = torch.load(self.found.path / "trainer-0.pt", weights_only=True, map_location="cpu")["position"]
        return Position(**there)


def find_start(wish: str, root: Path) -> Start:
    """Return the checkpoint and the branch that `--resume` means: off, auto, or a path.

    Raises:
        CheckpointError: the named one is unusable, or there are some and all are.
    """
    if wish == "off":
        return Start(None, lineage.new_run(), _others(root, "a new branch"))
    if wish != "auto":
        found = _named(Path(wish))
        branch = _branch_off(found)
        return Start(found, branch, _others(root, f"a new branch from {found.path.name}"))
    branch = _current_branch(root)
    found_in_branch = find_checkpoint(root, branch)
    if found_in_branch is None and branch.origin:
        found_in_branch = _named(Path(branch.origin))
    newest = next((path for path in store.list_checkpoints(root) if store.branch_of(path) != branch.name), None)
    note = ""
    if newest is not None and store.step_of(newest) > (found_in_branch.manifest.step if found_in_branch else -1):
        note = f"{newest.name} is of another branch; --resume {newest} goes on from it"
    return Start(found_in_branch, branch, note)


def find_checkpoint(root: Path, branch: Branch) -> Found | None:
    """Return the newest usable checkpoint of a branch.

    Raises:
        CheckpointError: there are some and none can be used.
    """
    complaints: list[str] = []
    for path in store.list_branch(root, branch.name):
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


def newest_of_run(root: Path) -> Path | None:
    """Return the newest checkpoint of the branch that a plain start would continue, or of any."""
    own = store.list_branch(root, _current_branch(root).name)
    return next(iter(own or store.list_checkpoints(root)), None)


def _named(path: Path) -> Found:
    if not path.is_dir():
        raise CheckpointError(f"there is no checkpoint at {path}", "'ls' the checkpoint directory, or --resume auto")
    return Found(path, store.verify(path))


def _branch_off(found: Found) -> Branch:
    manifest = found.manifest
    return lineage.branch_off(manifest.run, manifest.branch, manifest.lineage, found.path, manifest.step)


def _current_branch(root: Path) -> Branch:
    """The recorded branch; else that of the newest checkpoint, which an older runner made or whose record is lost."""
    recorded = lineage.read_current(root)
    if recorded is not None:
        return recorded
    for path in store.list_checkpoints(root):
        try:
            manifest = store.read_manifest(path)
        except CheckpointError:
            continue
        return Branch(run=manifest.run, name=manifest.branch, lineage=manifest.lineage)
    return lineage.new_run()


def _others(root: Path, begun: str) -> str:
    """Say that checkpoints of other branches stay, if there are any."""
    count = len(store.list_checkpoints(root))
    stay = "1 earlier checkpoint stays" if count == 1 else f"{count} earlier checkpoints stay"
    return f"{begun}; {stay}, --resume PATH goes on from one" if count else ""


@dataclass(frozen=True)
class Restored:
    """What to say about a resume: why it is not exact, and which hyperparameters were changed."""

    not_exact: list[str]
    changed: list[str]


def restore(state: TrainState, found: Found, world: World, made: Mapping[str, Any]) -> Restored:
    """Bring `state` back to the checkpoint, and return what to say about it, nothing if it is exact.

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
    if state.built and saved.get("built"):
        check_same_optimizer(saved["built"], state.built)
    load_tensors(state, found.path, saved, now)
    if state.task is not None:
        restore_task(state.task, saved, found.path, device)
    changed = load_trainer(state, saved, with_randomness=now.same_world)
    reasons = [f"{name} is {made[name]}, was {there[name]}: not bit-exact" for name in sorted(differs)]
    if manifest.world != world.size:
        reasons.append(f"the checkpoint was made by {manifest.world} processes, these are {world.size}: not bit-exact")
    return Restored(reasons, changed)


def _placing(device: torch.device) -> Callable[[Any, str], Any]:
    """Put what was on a device onto the run's; what was in host memory stays there."""

    def place(storage: Any, location: str) -> Any:
        return storage if location == "cpu" or device.type == "cpu" else storage.to(device=device)

    return place
