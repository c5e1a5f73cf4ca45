"""Names inside the engine never run into one another."""

import itertools

import pytest

from gateway.engines.docker.names import bridge_name, container_name, familiar
from gateway.model import EnvironmentRef

HANDLES = ["a", "a-b", "a+b", "a-b+c", "a+b-c", "a-main", "b"]


def test_names_are_unique_over_gateways_users_and_environments() -> None:
    """Hyphens may stand in every part; the dots between the parts keep them apart."""
    owners = list(itertools.product(["a", "a-b", "b"], map(EnvironmentRef.parse, HANDLES)))
    assert len({container_name(*owner) for owner in owners}) == len(owners)
    assert len({bridge_name(*owner) for owner in owners}) == len(owners)


def test_a_bridge_fits_in_an_interface_name() -> None:
    """IFNAMSIZ is 16 with the zero at the end; a packet filter matches `dgw-*`."""
    name = bridge_name("g" * 31, EnvironmentRef.parse("u" * 31))
    assert len(name) == 15
    assert name.startswith("dgw-")


def test_a_hostname_is_a_dns_label() -> None:
    assert EnvironmentRef.parse("alice").hostname == "alice"
    assert EnvironmentRef.parse("alice+proj-").hostname == "alice-proj"
    assert len(EnvironmentRef.parse("u" * 31 + "+" + "e" * 31).hostname) == 63


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("docker.io/library/debian:12", "debian:12"),
        ("docker.io/devgw/env:cpu", "devgw/env:cpu"),
        ("registry.example/library/env:1", "registry.example/library/env:1"),
        ("localhost/env:1", "localhost/env:1"),
        ("library/env:1", "library/env:1"),
        ("devgw/env:cpu", "devgw/env:cpu"),
    ],
)
def test_an_image_is_named_as_docker_names_it(written: str, said: str) -> None:
    """Podman writes the registry out; a site's own registry stays in the name."""
    assert familiar(written) == said
