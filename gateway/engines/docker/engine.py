"""The Engine on a Docker daemon: asks in order and cleans up. See `spec` for how a container is confined."""

import logging
import math
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import docker.errors

from gateway.engines.docker import labels, names
from gateway.engines.docker.ceilings import ceilings_behind
from gateway.engines.docker.compose import compose_of
from gateway.engines.docker.connection import Connection, daemon_of, owner_of
from gateway.engines.docker.containers import (
    bind_mounts,
    has_run_short,
    is_limited,
    load_of,
    remainder,
    witness_of,
)
from gateway.engines.docker.errors import environment_exists, environment_not_found, image_not_found, is_name_taken
from gateway.engines.docker.facts import Facts, facts_of, report_of
from gateway.engines.docker.injection import is_podman
from gateway.engines.docker.names import familiar
from gateway.engines.docker.network import ensure_network, refs_with_network, rejoin_network, remove_network
from gateway.engines.docker.run_directories import RunDirectories, run_directory_in
from gateway.engines.docker.spec import container_body
from gateway.engines.interface import (
    IMAGE_LABEL_PREFIX,
    EngineReport,
    Image,
    Load,
    ObservedEnvironment,
    Progress,
    Service,
    ignore_progress,
    named,
)
from gateway.engines.mounts import require_mounted, require_sources
from gateway.engines.nodes import OneNode
from gateway.engines.packet_filter import HostPacketFilter, PacketFilter, require_own_network
from gateway.engines.run_directory import RunDirectory, absent
from gateway.errors import DevgwError
from gateway.model import Egress, EnvironmentRef, EnvironmentSpec

log = logging.getLogger(__name__)


class DockerEngine(OneNode):
    """One daemon at one explicit address. Several gateways may share it: each sees only what carries its id.

    `directory` is where it remembers what a dial needs; without one the daemon is asked at each dial.
    """

    name = "docker"

    def __init__(
        self,
        base_url: str,
        gateway_id: str,
        packet_filter: PacketFilter | None = None,
        directory: Path | None = None,
    ) -> None:
        self.gateway_id = names.parse_gateway_id(gateway_id)
        self._run_directories = RunDirectories(directory)
        self._connection = Connection(base_url)
        self._filter = packet_filter or HostPacketFilter()

    def report(self) -> EngineReport:
        with self._connection.asked_to("describe itself") as api:
            info = api.info()
            return report_of(info, self._facts(api, info))

    def create(self, spec: EnvironmentSpec, progress: Progress = ignore_progress) -> None:
        if self._connection.is_local():
            require_sources(spec)
        self.image(spec.image)
        with self._connection.asked_to(f"create {spec.ref}") as api:
            if self._inspect(api, spec.ref) is not None:
                raise environment_exists(str(spec.ref))
            body = container_body(spec, self.gateway_id, self._facts(api, api.info()))
            place = RunDirectory.of(spec)
            if place is not None:
                place.remove_sockets()
            self._make(api, spec, body, progress)
        if place is not None:
            self._run_directories.remember(spec.ref, place)

    def compose(self, spec: EnvironmentSpec) -> dict[str, Any]:
        """Return the document of a Compose file that makes this environment. Raises: EngineError."""
        with self._connection.asked_to("describe itself") as api:
            return compose_of(spec, container_body(spec, self.gateway_id, self._facts(api, api.info())))

    def start(self, ref: EnvironmentRef) -> None:
        with self._connection.asked_to(f"start {ref}") as api:
            container = self._found(api, ref)
            written = container["Config"]["Labels"]
            if labels.has_network(written):
                podman = is_podman(api.info())
                rejoin_network(api, self.gateway_id, ref, container["Id"], is_podman=podman)
                self._confine(ref, labels.egress_in(written), is_podman=podman)
            try:
                api.start(container["Id"])
            except docker.errors.APIError:
                if self._connection.is_local():  # each runtime has words of its own for it
                    require_mounted(bind_mounts(container))
                raise

    def stop(self, ref: EnvironmentRef, timeout_seconds: float) -> None:
        with self._connection.asked_to(f"stop {ref}") as api:
            container = self._inspect(api, ref)
            if container is not None:
                api.stop(container["Id"], timeout=math.ceil(timeout_seconds))

    def delete(self, ref: EnvironmentRef) -> None:
        with self._connection.asked_to(f"delete {ref}") as api:
            container = self._inspect(api, ref)
            if container is not None:
                _remove(api, container["Id"])
            remove_network(api, self.gateway_id, ref)
        self._run_directories.forget(ref)
        if container is None or labels.has_network(container["Config"]["Labels"]):
            self._filter.release(names.bridge_name(self.gateway_id, ref))

    def observe(self, ref: EnvironmentRef) -> ObservedEnvironment | None:
        with self._connection.asked_to(f"look for {ref}") as api:
            container = self._inspect(api, ref)
            if container is not None:
                return self._witness(ref, container)
            return remainder(ref) if ref in refs_with_network(api, self.gateway_id) else None

    def observe_all(self) -> list[ObservedEnvironment]:
        with self._connection.asked_to("list environments") as api:
            networks = refs_with_network(api, self.gateway_id)
            listed = api.containers(all=True, filters={"label": f"{labels.GATEWAY}={self.gateway_id}"})
            refs = {labels.ref_in(container["Labels"], self.gateway_id) for container in listed}
            inspected = {ref: self._inspect(api, ref) for ref in refs if ref is not None}
        found = [self._witness(ref, container) for ref, container in inspected.items() if container is not None]
        have_container = {observed.ref for observed in found}
        return found + [remainder(ref) for ref in networks - have_container]

    def dial(self, ref: EnvironmentRef, service: Service) -> socket.socket:
        place = self._run_directory(ref)
        if place is None:
            raise absent(service)
        return place.dial(service)

    def status(self, ref: EnvironmentRef) -> bytes | None:
        place = self._run_directory(ref)
        return None if place is None else place.status()

    def load(self, ref: EnvironmentRef) -> Load | None:
        with self._connection.asked_to(f"measure {ref}") as api:
            container = self._inspect(api, ref)
            if container is None or not container["State"]["Running"] or not is_limited(container["HostConfig"]):
                return None
            return load_of(api.stats(container["Id"], stream=False, one_shot=True))

    def logs(self, ref: EnvironmentRef, lines: int = 50) -> str:
        with self._connection.asked_to(f"read the log of {ref}") as api:
            written = api.logs(self._found(api, ref)["Id"], stdout=True, stderr=True, tail=lines)
            return bytes(written).decode(errors="replace")

    def image(self, reference: str) -> Image:
        with self._connection.asked_to(f"look for the image {reference}") as api:
            try:
                inspected = api.inspect_image(reference)
            except docker.errors.NotFound as exc:
                raise image_not_found(reference) from exc
        return Image(reference, inspected["Id"], (inspected["Config"] or {}).get("Labels") or {})

    def images(self) -> list[Image]:
        with self._connection.asked_to("list images") as api:
            listed = api.images(filters={"dangling": False})
        ours = [image for image in listed if any(key.startswith(IMAGE_LABEL_PREFIX) for key in image["Labels"] or {})]
        return [Image(familiar(tag), image["Id"], image["Labels"]) for image in ours for tag in image["RepoTags"]]

    def close(self) -> None:
        """Close the connection; a later call opens it again."""
        self._connection.close()

    def _facts(self, api: docker.APIClient, info: Mapping[str, Any]) -> Facts:
        url = self._connection.base_url
        return facts_of(info, api.api_version, ceilings_behind(url), owner_of(url))

    def _witness(self, ref: EnvironmentRef, container: Mapping[str, Any]) -> ObservedEnvironment:
        return witness_of(ref, container, ran_short=self._connection.is_local() and has_run_short(container))

    def _run_directory(self, ref: EnvironmentRef) -> RunDirectory | None:
        """Return what is remembered; of a container made by an older version, what the daemon says, once."""
        place = self._run_directories.find(ref)
        if place is None:
            with self._connection.asked_to(f"look for {ref}") as api:
                container = self._inspect(api, ref)
            place = None if container is None else run_directory_in(container)
            if place is not None:
                self._run_directories.remember(ref, place)
        return place

    def _inspect(self, api: docker.APIClient, ref: EnvironmentRef) -> dict[str, Any] | None:
        """Return the container of that name, if it is this gateway's."""
        try:
            inspected: dict[str, Any] = api.inspect_container(names.container_name(self.gateway_id, ref))
        except docker.errors.NotFound:
            return None
        written = inspected["Config"]["Labels"] or {}
        return inspected if labels.ref_in(written, self.gateway_id) == ref else None

    def _found(self, api: docker.APIClient, ref: EnvironmentRef) -> dict[str, Any]:
        container = self._inspect(api, ref)
        if container is None:
            raise environment_not_found(str(ref))
        return container

    def _make(self, api: docker.APIClient, spec: EnvironmentSpec, body: dict[str, Any], progress: Progress) -> None:
        made_network = False
        try:
            if spec.egress != Egress.NONE:
                progress("making a network of its own")
                podman = is_podman(api.info())
                made_network = ensure_network(api, self.gateway_id, spec.ref, is_podman=podman)
                self._confine(spec.ref, spec.egress, is_podman=podman)
            progress(f"making a container from {named(spec.image)}")
            api.create_container_from_config(body, names.container_name(self.gateway_id, spec.ref))
        except docker.errors.APIError as exc:
            if is_name_taken(exc):  # another create was quicker: container and network are its
                raise environment_exists(str(spec.ref)) from exc
            if made_network:
                self._give_back(spec.ref)
            raise
        except BaseException:  # no answer, or Ctrl-C: the engine may have made it all the same
            self._give_back(spec.ref)
            raise

    def _confine(self, ref: EnvironmentRef, egress: Egress, *, is_podman: bool) -> None:
        """Close the environment's network before anything runs in it. Podman makes the bridge with the start."""
        if is_podman:
            require_own_network(daemon_of(self._connection.base_url))
        self._filter.confine(names.bridge_name(self.gateway_id, ref), egress, is_made=not is_podman)

    def _give_back(self, ref: EnvironmentRef) -> None:
        """Remove what a failed create made; what cannot be removed now is a partial observed that reconcile finds."""
        try:
            self.delete(ref)
        except DevgwError as exc:
            log.warning("could not clean up after a failed create of %s: %s", ref, exc)


def _remove(api: docker.APIClient, container_id: str) -> None:
    """Kill and remove a container with its anonymous volumes, and wait for a removal that is already under way."""
    try:
        api.remove_container(container_id, v=True, force=True)
    except docker.errors.NotFound:
        return
    except docker.errors.APIError as exc:
        if exc.status_code != 409:
            raise
        with suppress(docker.errors.NotFound):  # it was quicker than our question
            api.wait(container_id, condition="removed")
