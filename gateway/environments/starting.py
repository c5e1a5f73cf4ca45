"""A start of an environment: GPUs, files and account in order, what the engine is told, waiting until it answers."""

import sys
from collections.abc import Callable
from dataclasses import replace

from gateway.engines.interface import Engine, Image, Progress
from gateway.environments.account import EnvironmentAccount, write_account
from gateway.environments.files import EnvironmentFiles
from gateway.environments.layout import Layout
from gateway.environments.leasing import NO_GPU, EnvironmentLeases
from gateway.environments.lifecycle_settings import LifecycleSettings
from gateway.environments.open_hosts import write_open_hosts
from gateway.environments.readiness import wait_until_ready
from gateway.environments.shared_volumes import groups_of
from gateway.environments.status import withdraw_notice
from gateway.environments.undo import undo_on_error
from gateway.errors import ConflictError, DevgwError
from gateway.model import NOWHERE, Actor, Environment, EnvironmentSpec, EnvironmentState
from gateway.store.environments import EnvironmentTable

_LONGEST_DETAIL = 300


class Starter:
    """Starts environments. Its caller holds the lock, and has found that they may start."""

    def __init__(
        self,
        table: EnvironmentTable,
        engine: Callable[[], Engine],
        leases: EnvironmentLeases,
        files: EnvironmentFiles,
        settings: LifecycleSettings,
    ) -> None:
        self._table = table
        self._engine = engine
        self._leases = leases
        self._files = files
        self._settings = settings

    def start(self, environment: Environment, progress: Progress, actor: Actor) -> None:
        """Make a container and have it answer; when a step fails nothing of it is left, and its row says why.

        Raises:
            DevgwError: whatever the lease, the engine or the disk said.
        """
        ref, engine, layout = environment.ref, self._engine(), self._files.layout(environment.ref)
        with undo_on_error() as undo:
            undo.callback(self._note_failed_start, environment)
            image = self._image_of(environment)
            engine.delete(ref)
            gpus = self._leases.before_start(environment, undo, progress, actor)
            self._files.make(ref, environment.limits.disk_bytes)
            shared, port = self._settings.shared.decide(ref, actor), self._settings.notebook_port
            account = EnvironmentAccount(ref, *self._files.owner(ref), gpus, self._settings.ca_line(), port, shared)
            write_account(layout, account)
            if self._settings.open_hosts is not None:
                hosts = self._settings.open_hosts(ref.user, environment.egress)
                write_open_hosts(layout, account.uid, account.gid, hosts)
            withdraw_notice(layout)
            undo.callback(engine.delete, ref)
            engine.create(self._spec(environment, image, account, layout), progress)
            engine.start(ref)
            found = self._leases.after_start(environment, actor)
            if found != gpus:
                write_account(layout, replace(account, gpus=found))
                engine.refresh(ref)
            wait_until_ready(engine, ref, self._settings.start_timeout, progress)
            self._table.set_image(ref, image.digest)
            self._table.set_state(ref, EnvironmentState.RUNNING, should_run=True)
            self._table.touch(ref)

    def require_open_node(self, environment: Environment) -> None:
        """Refuse to start what could only start on a node that is drained. Raises: ConflictError `node.drained`."""
        drained = self._settings.drained()
        if not drained:
            return
        wanted = environment.node_request
        candidates = [wanted] if wanted != NOWHERE else [node.name for node in self._engine().nodes()]
        if all(node in drained for node in candidates):
            names = ", ".join(candidates)
            raise ConflictError(
                "node.drained",
                f"{environment.ref} could only start on {names}, which is drained: {drained[candidates[0]]}",
                f"'devgw node undrain {candidates[0]}' puts it back",
            )

    def spec_of(self, environment: Environment) -> EnvironmentSpec:
        """Return what the engine would be told at a start now, with the GPUs it holds. Raises: NotFoundError."""
        ref = environment.ref
        shared = self._settings.shared.given(ref.user)
        account = EnvironmentAccount(
            ref, *self._files.owner(ref), environment.gpus, "", self._settings.notebook_port, shared
        )
        return self._spec(environment, self._image_of(environment), account, self._files.layout(ref))

    def _spec(
        self, environment: Environment, image: Image, account: EnvironmentAccount, layout: Layout
    ) -> EnvironmentSpec:
        ref = environment.ref
        datasets = {
            name: self._settings.datasets[name] for name in environment.datasets if name in self._settings.datasets
        }
        return EnvironmentSpec(
            ref=ref,
            uid=account.uid,
            gid=account.gid,
            image=image.digest or image.reference,  # an engine that keeps no images knows no digests
            limits=environment.limits,
            mounts=layout.mounts(datasets, [one.mount for one in account.shared]),
            groups=groups_of(account.shared),
            variables={"DEVGW_USER": ref.user, "DEVGW_ENVIRONMENT": str(ref), "HOME": f"/home/{ref.user}"},
            gpus=tuple(account.gpus),
            gpu_request=self._wish(environment),
            node=environment.node_request,
            avoided_nodes=tuple(sorted(self._settings.drained())),
            egress=environment.egress,
            read_only_root=self._settings.read_only_root,
        )

    def _image_of(self, environment: Environment) -> Image:
        """Return what it is started from now; a channel may have moved since the last time."""
        if self._settings.image_of is None:
            return self._engine().image(environment.image)
        return self._settings.image_of(environment.ref.user, environment.image)

    def _note_failed_start(self, environment: Environment) -> None:
        """Say in the row why it does not run. Called while the cause is handled."""
        cause = sys.exception()
        why = f": {cause.message}" if isinstance(cause, DevgwError) else ""
        detail = f"the last start failed{why}"[:_LONGEST_DETAIL]
        self._table.set_state(environment.ref, EnvironmentState.FAILED, should_run=False, detail=detail)

    def _wish(self, environment: Environment) -> str:
        """Return what the engine is to find; nothing where devgw has chosen already."""
        is_wish = self._leases.deciders.engine_places and environment.gpu_request not in NO_GPU
        return environment.gpu_request if is_wish else ""
