"""What devgw's things are called inside the engine. Two gateways can share one: each name holds its gateway's id.

A user or environment name has no dot (`model.NAME_PATTERN`), so a dot between the parts keeps names unambiguous.
"""

import hashlib
import re

from gateway.errors import ConfigError
from gateway.model import EnvironmentRef

_GATEWAY_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


def parse_gateway_id(text: str) -> str:
    """Return an id that may stand in the engine's names. Raises: ConfigError `gateway.bad-id`."""
    if _GATEWAY_ID.fullmatch(text) is None:
        raise ConfigError(
            "gateway.bad-id", f"{text[:40]!r} is not a gateway id", "use up to 31 of a-z, 0-9 and '-', such as 'lab1'"
        )
    return text


def container_name(gateway_id: str, ref: EnvironmentRef) -> str:
    """Name an environment's container; its own network, where it has one, is called the same."""
    return f"devgw-{gateway_id}.{ref.user}.{ref.name}"


def bridge_name(gateway_id: str, ref: EnvironmentRef) -> str:
    """Name the host's bridge interface: 15 bytes at most (IFNAMSIZ), so the tail is a digest.

    Every one starts with `dgw-`, which lets a packet filter match them all.
    """
    return "dgw-" + hashlib.sha256(container_name(gateway_id, ref).encode()).hexdigest()[:11]


def familiar(reference: str) -> str:
    """Return an image's name as Docker says it: Podman writes out the registry that a short name stands for."""
    short = reference.removeprefix("docker.io/")
    return short if short == reference else short.removeprefix("library/")
