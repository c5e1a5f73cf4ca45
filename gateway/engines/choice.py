"""Which engine this host runs environments on: the one the settings name, or with `auto` what is there.

The implementations are named here and nowhere else.
"""

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config import Settings
from gateway.engines.elsewhere import ImagesElsewhere, refuse_images
from gateway.engines.interface import Scheduling
from gateway.errors import EngineError

if TYPE_CHECKING:
    from gateway.engines.bubblewrap.engine import BubblewrapEngine
    from gateway.engines.bubblewrap.software import PreparedRoots
    from gateway.engines.diagnostics import EngineDiagnostics
    from gateway.engines.image_builder import ImageBuilder
    from gateway.engines.image_store import ImageStore
    from gateway.engines.interface import Engine
    from gateway.engines.kubernetes.engine import KubernetesEngine


class EngineChoice:
    """Makes the chosen engine and what belongs to it. `gateway_id` marks what is this gateway's in a shared engine."""

    def __init__(self, settings: Settings, gateway_id: str) -> None:
        self._settings = settings
        self._gateway_id = gateway_id

    @cached_property
    def kind(self) -> str:
        """The engine's name: the one set, or with `auto` Docker when it answers, else bubblewrap."""
        wanted = self._settings.engine.kind
        if wanted != "auto":
            return wanted
        from gateway.engines.docker.engine import DockerEngine

        try:
            DockerEngine(self.docker_url, gateway_id=self._gateway_id).report()
        except EngineError:
            return "bubblewrap"
        return "docker"

    @property
    def scheduling(self) -> Scheduling:
        """What the engine decides by itself, known without asking it."""
        return Scheduling(places_gpus=not self.runs_here)  # Docker and bubblewrap decide nothing

    @property
    def runs_here(self) -> bool:
        """Whether environments run on this host, whose processors and disks are theirs then; known without asking."""
        return self._settings.engine.kind != "kubernetes"

    def engine(self) -> "Engine":
        """Return the engine. Raises: EngineError `engine.unreachable`, `engine.absent`."""
        from gateway.engines.docker.engine import DockerEngine

        if self.kind == "docker":
            directory = self._settings.state_dir / "run-directories"
            return DockerEngine(self.docker_url, gateway_id=self._gateway_id, directory=directory)
        return self._kubernetes() if self.kind == "kubernetes" else self._bubblewrap()

    def diagnostics(self) -> "EngineDiagnostics":
        """Return what `devgw doctor` asks of the engine."""
        if self.kind == "docker":
            from gateway.engines.docker.diagnostics import DockerDiagnostics

            return DockerDiagnostics(self.docker_url, gateway_id=self._gateway_id)
        if self.kind == "kubernetes":
            return self._kubernetes().diagnostics()
        from gateway.engines.bubblewrap.diagnostics import BubblewrapDiagnostics

        return BubblewrapDiagnostics(self._bubblewrap(), self._gateway_id, self._settings.gpus.cdi_spec_dirs)

    def image_builder(self) -> "ImageBuilder":
        """Return what builds images for the engine. Raises: EngineError `image.elsewhere`, where it builds none."""
        if self.kind == "docker":
            from gateway.engines.docker.image_build import connect_builder

            return connect_builder(self.docker_url)
        if self.kind == "kubernetes":
            refuse_images("builds")
        from gateway.engines.bubblewrap.engine import find_bwrap
        from gateway.engines.bubblewrap.image_build import BubblewrapImageBuilder

        return BubblewrapImageBuilder(self.prepared_roots, find_bwrap()[0])

    def image_store(self) -> "ImageStore":
        """Return what keeps images for the engine."""
        if self.kind == "docker":
            from gateway.engines.docker.image_store import DockerImageStore

            return DockerImageStore(self.docker_url)
        if self.kind == "kubernetes":
            return ImagesElsewhere()
        from gateway.engines.bubblewrap.image_store import RootStore

        return RootStore(self.prepared_roots)

    def why_projects_are_left(self) -> str:
        """Say why users could take their files out of the project of a quota; empty where they cannot.

        The kernel lets the owner of a file do so, except in a user namespace, where bubblewrap has them all.
        """
        return "" if self.kind == "bubblewrap" else f"users of {self.kind}'s environments could leave their project"

    def daemons(self) -> tuple[int, ...]:
        """Return the processes of this host that mount the directories of environments, beside devgw's own."""
        if self.kind != "docker":
            return ()
        from gateway.engines.docker.connection import daemon_of

        found = daemon_of(self.docker_url)
        return () if found is None else (found,)

    @property
    def prepared_roots(self) -> "PreparedRoots":
        """Where bubblewrap's images lie."""
        from gateway.engines.bubblewrap.software import PreparedRoots

        return PreparedRoots(Path(self._settings.engine.roots_dir or self._settings.state_dir / "roots"))

    @property
    def docker_url(self) -> str:
        """Docker's API: from the settings, DOCKER_HOST or the usual socket; never from the docker CLI's context."""
        return self._settings.engine.docker_url or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"

    def _kubernetes(self) -> "KubernetesEngine":
        try:
            from gateway.engines.kubernetes.engine import KubernetesEngine
        except ModuleNotFoundError as exc:
            raise EngineError(
                "engine.absent",
                f"the client of Kubernetes is not installed: there is no module {exc.name}",
                "pip install 'devgw[kubernetes]'",
            ) from exc
        return KubernetesEngine(self._settings.kubernetes, self._gateway_id)

    def _bubblewrap(self) -> "BubblewrapEngine":
        from gateway.engines.bubblewrap.engine import BubblewrapEngine

        directory = self._settings.state_dir / "sandboxes"
        return BubblewrapEngine(directory, self._gateway_id, self.prepared_roots, self._settings.gpus.cdi_spec_dirs)
