"""Write checkpoints behind the training's back, and say at the next poll if that failed.

See `state` for what is in them, and `store` for what makes one complete.
"""

import errno
import io
import shutil
import threading
import time
from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import async_save

from devgw_runner.checkpoint import durable, lineage, store
from devgw_runner.checkpoint.lineage import Branch
from devgw_runner.checkpoint.staging import known_parameters
from devgw_runner.checkpoint.start import record_launchers
from devgw_runner.checkpoint.state import TrainState, collect_tensors, collect_trainer, describe_model
from devgw_runner.errors import DISK_FULL_ERRNOS, READ_ONLY_ERRNOS, RunnerError, StorageError, storage_error
from devgw_runner.parallel.world import World, failed_by_another, others_failure

SAVE_MARGIN = 1.1  # a checkpoint must find a tenth more room than it needs


@dataclass(frozen=True)
class WriterSettings:
    """Where checkpoints go, how many stay, and the choices that a resume must take over."""

    root: Path
    keep: int
    numerics: dict[str, Any]
    asynchronous: bool
    stager: Any | None = None  # copies the state to host memory; None leaves it to the storage writer
    made: dict[str, str] = field(default_factory=dict)
    branch: Branch = field(default_factory=Branch)
    keep_best: int = 0


class CheckpointWriter:
    """Saves one checkpoint at a time. Every process of the world calls the same methods in the same order."""

    def __init__(self, settings: WriterSettings, world: World) -> None:
        self._settings = settings
        self._numerics = dict(settings.numerics)
        self._world = world
        timeout = timedelta(seconds=world.timeout_seconds)
        self._group = dist.new_group(backend="gloo", timeout=timeout) if world.is_distributed else None
        self._sealing: threading.Thread | None = None
        self._failure: BaseException | None = None
        self.saved_step = -1
        self.saved_at = time.monotonic()
        if world.is_main:
            store.sweep_unfinished(settings.root)

    def begin_branch(self, launchers: Collection[str] = ()) -> None:
        """Record the branch, so that a plain start continues it from now on, and who writes it."""
        root = self._settings.root
        if self._world.is_main:
            lineage.record(root, self._settings.branch)
            record_launchers(root, launchers)
            durable.sync_directory(root.parent)

    def save(self, state: TrainState, *, wait: bool) -> None:
        """Copy the state and write it; with `wait`, return only when it is sealed.

        Raises:
            StorageError: this or the previous checkpoint could not be written; earlier ones are intact.
        """
        self.wait()
        step = state.position.step
        if self.saved_step == step:
            return
        tensors = collect_tensors(state)
        try:
            temporary = self._prepare(step, tensors)
            content = io.BytesIO()
            torch.save(collect_trainer(state), content)
            durable.write_file(temporary / f"trainer-{self._world.rank}.pt", content.getbuffer())
            upload = self._start_upload(tensors, temporary)
        except (Exception, CheckpointException) as exc:
            self._clear(step)
            raise self._told(exc) from exc
        manifest = store.Manifest(
            step=step,
            model=describe_model(state.model),
            numerics=dict(self._numerics),
            world=self._world.size,
            torch=torch.__version__,
            made=dict(self._settings.made),
            run=self._settings.branch.run,
            branch=self._settings.branch.name,
            lineage=self._settings.branch.lineage,
            position=asdict(state.position),
            monitored=state.monitor.describe(),
        )
        # Not a daemon: the interpreter must not exit before the seal.
        self._sealing = threading.Thread(target=self._finish, args=(upload, manifest), name="checkpoint-seal")
        self._sealing.start()
        if wait or not self._settings.asynchronous:
            self.wait()
            self._world.barrier()

    def note_numerics(self, **values: Any) -> None:
        """Record a choice that changed while running; later checkpoints carry it."""
        self._numerics.update(values)

    def poll(self) -> None:
        """Raise the failure of a background write, if there was one since the last call."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise self._told(failure) from failure

    def wait(self) -> None:
        """Wait for the background write to end, and raise its failure."""
        if self._sealing is not None:
            self._sealing.join()
            self._sealing = None
        self.poll()

    def close(self) -> None:
        """Wait for the background write without raising: the run is ending for another reason, or is done."""
        if self._sealing is not None:
            self._sealing.join()

    def _prepare(self, step: int, tensors: dict[str, torch.Tensor]) -> Path:
        temporary = store.temporary_directory(self._settings.root, step)
        if self._world.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            self._require_space(sum(value.numel() * value.element_size() for value in tensors.values()))
        self._world.barrier()
        return temporary

    def _require_space(self, needed_bytes: int) -> None:
        free = shutil.disk_usage(self._settings.root).free
        if free < needed_bytes * SAVE_MARGIN:
            raise OSError(errno.ENOSPC, "No space left on device", str(self._settings.root))

    def _start_upload(self, tensors: dict[str, torch.Tensor], temporary: Path) -> Future[Any]:
        """Copy the tensors to host memory now and write them in a thread."""
        upload = async_save(
            tensors,
            storage_writer=FileSystemWriter(temporary),
            # What every process has, the main one saves; torch's choice may fall on any.
            planner=DefaultSavePlanner(dedup_save_to_lowest_rank=True),
            **known_parameters(
                {
                    "process_group": self._group,
                    "no_dist": not self._world.is_distributed,
                    "async_stager": self._settings.stager,
                }
            ),
        )
        assert isinstance(upload, Future)  # noqa: S101 - narrows a type that the caller guarantees
        return upload

    def _finish(self, upload: Future[Any], manifest: store.Manifest) -> None:
        root, step = self._settings.root, manifest.step
        try:
            # The main process's upload ends after all others', because it writes the common metadata last.
            upload.result()
            if self._world.is_main:
                final = store.step_directory(root, step, manifest.branch)
                store.seal(store.temporary_directory(root, step), final, manifest)
                own = store.list_branch(root, manifest.branch) if self._settings.keep_best else []
                best = store.best_checkpoints(own, manifest.monitored, self._settings.keep_best)
                store.prune(root, self._settings.keep, manifest.branch, spared=best)
            self.saved_step, self.saved_at = step, time.monotonic()
        except BaseException as exc:  # noqa: BLE001 - it crosses to the main thread and is raised there
            self._failure = exc
            self._clear(step)

    def _told(self, failure: BaseException) -> RunnerError:
        if failed_by_another(failure):
            return others_failure(failure, self._world)
        return _translate(failure)

    def _clear(self, step: int) -> None:
        if self._world.is_main:
            shutil.rmtree(store.temporary_directory(self._settings.root, step), ignore_errors=True)


def _translate(exc: BaseException) -> RunnerError:
    """Find the operating system's word inside torch's wrapping."""
    if isinstance(exc, RunnerError):
        return exc
    found = _find_os_error(exc)
    if found is not None:
        return storage_error(found, "saving a checkpoint")
    text = str(exc)
    for number in DISK_FULL_ERRNOS | READ_ONLY_ERRNOS:
        if f"Errno {number}]" in text:
            return storage_error(OSError(number, ""), "saving a checkpoint")
    first_line = next(iter(text.splitlines()), type(exc).__name__)
    # torch's zip writer reports a short write without an errno.
    if "PytorchStreamWriter" in text or "file write" in text or "unexpected pos" in text:
        return storage_error(OSError(errno.ENOSPC, ""), "saving a checkpoint")
    return StorageError(f"a checkpoint could not be saved: {first_line}", "earlier checkpoints are intact")


def _find_os_error(exc: BaseException | None) -> OSError | None:
    seen: list[BaseException | None] = [exc]
    if isinstance(exc, CheckpointException):
        seen.extend(failure[0] for failure in exc.failures.values())
    while seen:
        current = seen.pop()
        if isinstance(current, OSError):
            return current
        if current is not None:
            seen.extend(link for link in (current.__cause__, current.__context__) if link is not None)
    return None
