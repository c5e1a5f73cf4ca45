"""The labels by which the engine remembers an environment: the second observed beside the store.

All of them are always written, empty ones too, so that none can come from the image.
"""

import re
from collections.abc import Mapping

from gateway.engines.digest import digest_of
from gateway.errors import UsageError
from gateway.model import Egress, EnvironmentRef, EnvironmentSpec, GpuUuid, parse_environment_name, parse_user_name

GATEWAY = "devgw.gateway"
USER = "devgw.user"
NAME = "devgw.name"
UID = "devgw.uid"
GPUS = "devgw.gpus"
IMAGE = "devgw.image"
SPEC = "devgw.spec"
EGRESS = "devgw.egress"

_UID = re.compile(r"[0-9]{1,10}")


def labels_of(spec: EnvironmentSpec, gateway_id: str) -> dict[str, str]:
    """Return what is written on an environment's container."""
    return {
        **labels_of_network(spec.ref, gateway_id),
        UID: str(spec.uid),
        GPUS: ",".join(spec.gpus),
        IMAGE: spec.image,
        SPEC: digest_of(spec),
        EGRESS: spec.egress,
    }


def labels_of_network(ref: EnvironmentRef, gateway_id: str) -> dict[str, str]:
    """Return what is written on an environment's network: whose it is."""
    return {GATEWAY: gateway_id, USER: ref.user, NAME: ref.name}


def ref_in(labels: Mapping[str, str], gateway_id: str) -> EnvironmentRef | None:
    """Read whose something is; None for anything that this gateway did not write."""
    if labels.get(GATEWAY) != gateway_id:
        return None
    try:
        return EnvironmentRef(parse_user_name(labels.get(USER, "")), parse_environment_name(labels.get(NAME, "")))
    except UsageError:
        return None


def uid_in(labels: Mapping[str, str]) -> int:
    """Read the uid; -1 where the label is damaged, which equals no user's."""
    text = labels.get(UID, "")
    return int(text) if _UID.fullmatch(text) else -1


def gpus_in(labels: Mapping[str, str]) -> tuple[GpuUuid, ...]:
    """Read the leased UUIDs."""
    return tuple(GpuUuid(uuid) for uuid in labels.get(GPUS, "").split(",") if uuid)


def has_network(labels: Mapping[str, str]) -> bool:
    """Say whether the environment has a network of its own."""
    return labels.get(EGRESS, Egress.NONE) != Egress.NONE


def egress_in(labels: Mapping[str, str]) -> Egress:
    """Read where connections may go; none where the label is damaged."""
    try:
        return Egress(labels.get(EGRESS, Egress.NONE))
    except UsageError:
        return Egress.NONE
