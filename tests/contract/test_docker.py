"""What only Docker can get wrong: what `docker inspect` shows, and what the daemon keeps behind our back."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from gateway.engines.docker.engine import DockerEngine
from gateway.engines.docker.names import container_name
from gateway.model import Egress, EnvironmentRef, Mount
from tests.contract.subject import EngineUnderTest, started
from tests.support.small_disk import docker_pid

pytestmark = [pytest.mark.engine, pytest.mark.docker]

ALICE = EnvironmentRef.parse("alice")


@pytest.fixture
def api(real: EngineUnderTest) -> docker.APIClient:
    """Return the daemon itself, for looking at what the engine made of a spec."""
    if not isinstance(real.engine, DockerEngine):
        pytest.skip("this is about docker")
    return docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="auto")


def inspected(api: docker.APIClient, real: EngineUnderTest) -> dict[str, Any]:
    """Return `docker inspect` of alice's container."""
    [listed] = [each for each in api.containers(all=True) if each["Labels"].get("devgw.gateway") == gateway_id(real)]
    return dict(api.inspect_container(listed["Id"]))


def gateway_id(real: EngineUnderTest) -> str:
    """Return the id this test's gateway uses."""
    assert isinstance(real.engine, DockerEngine)
    return real.engine.gateway_id


def networks(api: docker.APIClient, real: EngineUnderTest) -> list[str]:
    """Return the names of this gateway's networks."""
    return [each["Name"] for each in api.networks(filters={"label": f"devgw.gateway={gateway_id(real)}"})]


@pytest.mark.parametrize("egress", [Egress.NONE, Egress.INTERNET, Egress("203.0.113.0/24:443")])
def test_no_port_is_published(real: EngineUnderTest, api: docker.APIClient, egress: Egress) -> None:
    """The image EXPOSEs one; the host shows none."""
    real.engine.create(real.spec(egress=egress))
    real.engine.start(ALICE)
    shown = inspected(api, real)
    assert not shown["HostConfig"]["PortBindings"]
    assert not any(shown["NetworkSettings"]["Ports"].values())


def test_what_it_prints_has_an_end(real: EngineUnderTest, api: docker.APIClient) -> None:
    """Anybody inside can write to process 1's output; the daemon keeps three files of 20 MB, the older ones packed."""
    spool = started(real)
    assert spool.run("head -c 70000000 /dev/zero | tr '\\0' x | fold -w 1000 >/proc/1/fd/1").code == 0
    container = Path(api.info()["DockerRootDir"]) / "containers" / inspected(api, real)["Id"]
    seen_by_the_daemon = Path(f"/proc/{docker_pid(os.environ['DOCKER_HOST'])}/root") / container.relative_to("/")
    written = sum(file.stat().st_size for file in seen_by_the_daemon.rglob("*") if file.is_file())
    assert 2**16 < written < 64 * 10**6


def test_no_secret_is_shown(real: EngineUnderTest, api: docker.APIClient, tmp_path: Path) -> None:
    """Invariant 6: a password hash is a file that is mounted, and only its path appears."""
    secret = tmp_path / "notebook-password"
    secret.write_text("$2b$12$a-hash-nobody-may-see")
    spec = real.spec()
    real.engine.create(replace(spec, mounts=(*spec.mounts, Mount(secret, "/etc/devgw/hash", read_only=True))))
    shown = json.dumps(inspected(api, real))
    assert str(secret) in shown
    assert "a-hash-nobody-may-see" not in shown


def test_labels_of_the_image_do_not_pass_for_ours(real: EngineUnderTest, api: docker.APIClient) -> None:
    """The suite's image says devgw.user=mallory."""
    real.engine.create(real.spec())
    assert inspected(api, real)["Config"]["Labels"]["devgw.user"] == "alice"


def test_the_environments_network_comes_and_goes_with_it(real: EngineUnderTest, api: docker.APIClient) -> None:
    real.engine.create(real.spec(egress=Egress.INTERNET))
    assert networks(api, real) == [container_name(gateway_id(real), ALICE)]
    real.engine.delete(ALICE)
    assert networks(api, real) == []


def test_a_network_somebody_else_joined_is_removed_all_the_same(real: EngineUnderTest, api: docker.APIClient) -> None:
    """An administrator's `docker network connect` must not keep an environment from being deleted."""
    real.engine.create(real.spec(egress=Egress.INTERNET))
    real.engine.create(real.spec("bob"))
    bob = container_name(gateway_id(real), EnvironmentRef.parse("bob"))
    api.disconnect_container_from_network(bob, "none")
    api.connect_container_to_network(bob, container_name(gateway_id(real), ALICE))
    real.engine.start(EnvironmentRef.parse("bob"))
    real.engine.delete(ALICE)
    assert networks(api, real) == []


def test_anonymous_volumes_go_with_the_container(real: EngineUnderTest, api: docker.APIClient) -> None:
    """The image declares a VOLUME; a year of environments would leave a thousand of them."""
    real.engine.create(real.spec())
    [volume] = [mount["Name"] for mount in inspected(api, real)["Mounts"] if mount["Type"] == "volume"]
    real.engine.delete(ALICE)
    with pytest.raises(docker.errors.NotFound):
        api.inspect_volume(volume)


def test_a_container_of_our_name_that_is_not_ours_is_left_alone(real: EngineUnderTest, api: docker.APIClient) -> None:
    """The labels decide, not the name."""
    name = container_name(gateway_id(real), ALICE)
    made = api.create_container_from_config({"Image": real.image}, name)
    try:
        real.engine.delete(ALICE)
        assert real.engine.observe(ALICE) is None
        assert api.inspect_container(made["Id"])["Name"] == f"/{name}"
    finally:
        api.remove_container(made["Id"], v=True, force=True)


def test_a_pruned_network_does_not_keep_an_environment_from_starting(
    real: EngineUnderTest, api: docker.APIClient
) -> None:
    """`docker network prune` removes the networks of stopped environments."""
    real.engine.create(real.spec(egress=Egress.INTERNET))
    for _start in ("first", "after a stop"):
        api.remove_network(container_name(gateway_id(real), ALICE))
        real.engine.start(ALICE)
        assert real.engine.observe(ALICE).running
        real.engine.stop(ALICE, 10)
    real.engine.start(ALICE)
    assert real.engine.observe(ALICE).running
    assert networks(api, real) == [container_name(gateway_id(real), ALICE)]
