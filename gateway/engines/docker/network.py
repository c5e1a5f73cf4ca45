"""The network of one environment: a bridge that no other is on. See `packet_filter` for what may leave it."""

from contextlib import suppress
from typing import Any

import docker
import docker.errors
import requests

from gateway.engines.docker import labels, names
from gateway.model import EnvironmentRef

_NO_CONTAINER_TO_CONTAINER = {"com.docker.network.bridge.enable_icc": "false"}
_LIBPOD = "/v4.0.0/libpod"
"""Podman's own API, which its service answers beside Docker's (docs.podman.io, "Reference")."""


def ensure_network(api: docker.APIClient, gateway_id: str, ref: EnvironmentRef, *, is_podman: bool) -> bool:
    """Make the environment's own bridge network, or keep the one left by an interrupted create. Return whether made."""
    try:
        (_make_as_podman if is_podman else _make)(api, gateway_id, ref)
    except docker.errors.APIError as exc:
        if exc.status_code != 409:
            raise
        return False
    return True


def rejoin_network(
    api: docker.APIClient, gateway_id: str, ref: EnvironmentRef, container_id: str, *, is_podman: bool
) -> None:
    """Make the network anew if `docker network prune` took it while the environment was stopped.

    A container that has been started remembers the old network's id, so it has to leave and join.
    """
    if ensure_network(api, gateway_id, ref, is_podman=is_podman):
        name = names.container_name(gateway_id, ref)
        api.disconnect_container_from_network(container_id, name, force=True)
        api.connect_container_to_network(container_id, name)


def remove_network(api: docker.APIClient, gateway_id: str, ref: EnvironmentRef) -> None:
    """Remove the environment's network and whatever still holds on to it; an absent one changes nothing."""
    for network in _networks(api, gateway_id):
        if labels.ref_in(network["Labels"] or {}, gateway_id) != ref:
            continue
        with suppress(docker.errors.NotFound):
            endpoints = api.inspect_network(network["Id"])["Containers"] or {}
            for endpoint in endpoints:
                with suppress(docker.errors.NotFound):
                    api.disconnect_container_from_network(endpoint, network["Id"], force=True)
            api.remove_network(network["Id"])


def refs_with_network(api: docker.APIClient, gateway_id: str) -> set[EnvironmentRef]:
    """Return whose networks this gateway has here."""
    found = (labels.ref_in(network["Labels"] or {}, gateway_id) for network in _networks(api, gateway_id))
    return {ref for ref in found if ref is not None}


def _make(api: docker.APIClient, gateway_id: str, ref: EnvironmentRef) -> None:
    api.create_network(
        names.container_name(gateway_id, ref),
        driver="bridge",
        options={
            **_NO_CONTAINER_TO_CONTAINER,
            "com.docker.network.bridge.name": names.bridge_name(gateway_id, ref),
        },
        labels=labels.labels_of_network(ref, gateway_id),
        enable_ipv6=False,  # the filter closes IPv6 whole, and a default of the daemon's must not say otherwise
        check_duplicate=True,  # engines with an API below 1.44 would make a second one of the same name
    )


def _make_as_podman(api: docker.APIClient, gateway_id: str, ref: EnvironmentRef) -> None:
    """By Docker's API it would answer names at the host's end of the bridge, which the filter closes."""
    asked = {
        "name": names.container_name(gateway_id, ref),
        "driver": "bridge",
        "network_interface": names.bridge_name(gateway_id, ref),
        "labels": labels.labels_of_network(ref, gateway_id),
        "dns_enabled": False,
        "ipv6_enabled": False,
        "options": {"isolate": "true"},
    }
    answer = api.post(f"{api.base_url}{_LIBPOD}/networks/create", json=asked, timeout=api.timeout)
    try:
        answer.raise_for_status()
    except requests.HTTPError as exc:
        docker.errors.create_api_error_from_http_exception(exc)


def _networks(api: docker.APIClient, gateway_id: str) -> list[dict[str, Any]]:
    return list(api.networks(filters={"label": f"{labels.GATEWAY}={gateway_id}"}))
