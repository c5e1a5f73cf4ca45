"""What devgw's objects are called in a cluster, and the labels and annotations by which it knows them again.

Names of objects and values of labels end with a letter or digit; those of users and environments may end with `-`.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from gateway.errors import UsageError
from gateway.model import EnvironmentRef, parse_environment_name, parse_user_name

_PREFIX = "devgw.org/"
GATEWAY, USER, NAME, UID = (f"{_PREFIX}{word}" for word in ("gateway", "user", "name", "uid"))
DIGEST = f"{_PREFIX}spec-digest"
IMAGE = f"{_PREFIX}image"
GPU_COUNT = f"{_PREFIX}gpu-count"
POD = f"{_PREFIX}pod"
"""Annotation of the record: the pod that a start makes."""
EGRESS = f"{_PREFIX}egress"
FILES = f"{_PREFIX}files"
"""Annotation of the record: the gateway's directory behind its files."""
NEW_CLAIMS = f"{_PREFIX}new-claims"
"""Annotation of the record until its pod was looked into: the claims that were made with it, and go with it."""
GPUS = f"{_PREFIX}gpus"
"""Annotation of a running pod: the UUIDs that were read inside it."""
ENDED = f"{_PREFIX}ended"
LOG = f"{_PREFIX}log"
CONFIG = f"{_PREFIX}config"
"""Annotation of a pod that changes with its files: a change makes the kubelet look at them at once."""

_TAIL = ".0"  # no user or environment name has a dot


def object_name(gateway_id: str, ref: EnvironmentRef) -> str:
    """Name an environment's Secret, pod and NetworkPolicy: readable, and unambiguous by its digest."""
    digest = hashlib.sha256(f"{gateway_id}.{ref.user}.{ref.name}".encode()).hexdigest()[:10]
    return f"devgw-{ref.user}-{ref.name}-{digest}"


def claim_name(gateway_id: str, ref: EnvironmentRef, volume: str) -> str:
    """Name the claim of one of an environment's volumes."""
    return f"{object_name(gateway_id, ref)}-{volume}"


def labels_of(gateway_id: str, ref: EnvironmentRef) -> dict[str, str]:
    """Return what is written on everything of an environment: whose it is."""
    return {
        "app.kubernetes.io/managed-by": "devgw",
        GATEWAY: _label(gateway_id),
        USER: _label(ref.user),
        NAME: _label(ref.name),
    }


def selector_of(gateway_id: str, ref: EnvironmentRef | None = None) -> str:
    """Return the label selector of a gateway's objects, or of one environment's."""
    if ref is None:
        return f"{GATEWAY}={_label(gateway_id)}"
    return ",".join(f"{key}={value}" for key, value in labels_of(gateway_id, ref).items())


def ref_in(found: Mapping[str, Any], gateway_id: str) -> EnvironmentRef | None:
    """Read whose an object is; None for what this gateway did not make or does not call so."""
    metadata = found["metadata"]
    written = metadata.get("labels") or {}
    if written.get(GATEWAY) != _label(gateway_id):
        return None
    try:
        user = parse_user_name(written.get(USER, "").removesuffix(_TAIL))
        ref = EnvironmentRef(user, parse_environment_name(written.get(NAME, "").removesuffix(_TAIL)))
    except UsageError:
        return None
    return ref if metadata["name"] == object_name(gateway_id, ref) else None


def _label(value: str) -> str:
    return f"{value}{_TAIL}" if value.endswith("-") else value
