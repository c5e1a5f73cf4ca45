"""What the doctor asks of a Docker daemon: read from its API, nothing is made."""

from collections.abc import Mapping
from typing import Any

import docker
import docker.errors

from gateway.engines.diagnostics import EngineFacts, ImageFacts
from gateway.engines.docker import labels, names
from gateway.engines.docker.ceilings import ceilings_behind
from gateway.engines.docker.connection import Connection
from gateway.engines.docker.errors import image_not_found
from gateway.engines.docker.facts import facts_of, missing_limits, remaps_users, report_of
from gateway.engines.interface import IMAGE_LABEL_PREFIX
from gateway.model import EnvironmentRef

_QUICK_SECONDS = 10


class DockerDiagnostics:
    """Asks one daemon. A daemon that does not answer soon is one that does not answer."""

    def __init__(self, base_url: str, gateway_id: str) -> None:
        self._gateway_id = names.parse_gateway_id(gateway_id)
        self._connection = Connection(base_url, timeout_seconds=_QUICK_SECONDS)

    def read(self) -> EngineFacts:
        with self._connection.asked_to("describe itself") as api:
            info, api_version = api.info(), api.api_version
            marks = self._containers(api)
        return engine_facts_of(
            info,
            api_version,
            ceilings_behind(self._connection.base_url),
            marks=marks,
            is_local=self._connection.is_local(),
        )

    def image(self, reference: str) -> ImageFacts:
        with self._connection.asked_to(f"look for the image {reference}") as api:
            try:
                config = api.inspect_image(reference)["Config"] or {}
            except docker.errors.NotFound as exc:
                raise image_not_found(reference) from exc
        written = config.get("Labels") or {}
        own = {key.removeprefix(IMAGE_LABEL_PREFIX): value for key, value in written.items() if _is_own(key)}
        variables = dict(entry.partition("=")[::2] for entry in config.get("Env") or [])
        return ImageFacts(reference, own, variables, config.get("User") or "")

    def _containers(self, api: docker.APIClient) -> dict[str, EnvironmentRef]:
        listed = api.containers(filters={"label": f"{labels.GATEWAY}={self._gateway_id}"})
        refs = {one["Id"]: labels.ref_in(one["Labels"], self._gateway_id) for one in listed}
        return {identity: ref for identity, ref in refs.items() if ref is not None}


def engine_facts_of(
    info: Mapping[str, Any],
    api_version: str,
    ceilings: Mapping[str, int],
    *,
    marks: Mapping[str, EnvironmentRef],
    is_local: bool,
) -> EngineFacts:
    """Read `/info`."""
    facts = facts_of(info, api_version, ceilings)
    report = report_of(info, facts)
    return EngineFacts(
        name=report.name,
        version=report.version,
        api_version=facts.api_version,
        default_runtime=str(info.get("DefaultRuntime") or ""),
        gpu_injection=report.gpu_injection,
        cgroup_driver=str(info.get("CgroupDriver") or ""),
        cgroup_version=str(info.get("CgroupVersion") or ""),
        has_live_restore=facts.is_podman or bool(info.get("LiveRestoreEnabled")),  # Podman's run beside its service
        remaps_users=remaps_users(info),
        seccomp=facts.seccomp,
        root_directory=str(info.get("DockerRootDir") or ""),
        is_local=is_local,
        missing_limits=missing_limits(info),
        cdi_directories=tuple(info.get("CDISpecDirs") or ()),
        cdi_devices=facts.injection.devices,
        ceilings=dict(ceilings),
        marks=dict(marks),
        product=facts.product,
        is_rootless=facts.maps_users,
        keeps_user=facts.keeps_user,
    )


def _is_own(key: str) -> bool:
    return key.startswith(IMAGE_LABEL_PREFIX)
