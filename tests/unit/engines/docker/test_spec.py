"""The hardening of a container, key by key. That the daemon honours it is tried in tests/contract."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.engines.docker.facts import Facts, facts_of
from gateway.engines.docker.injection import Injection
from gateway.engines.docker.spec import container_body
from gateway.errors import EngineError
from gateway.model import Egress, EnvironmentRef, EnvironmentSpec, Limits, Mount
from tests.fakes.docker_daemon import HEALTHY_INFO

FACTS = Facts((1, 45), Injection("none", ""), "builtin")
SPEC = EnvironmentSpec(
    ref=EnvironmentRef.parse("alice+proj"),
    uid=1001,
    gid=1002,
    image="img",
    limits=Limits(memory_bytes=8 * 2**30, cpus=1.5, pids=512, shm_bytes=2**30),
    mounts=(Mount(Path("/srv/home"), "/home/alice"), Mount(Path("/srv/data"), "/datasets/d", read_only=True)),
    variables={"A": "1"},
)


def host_config(spec: EnvironmentSpec = SPEC, facts: Facts = FACTS) -> dict[str, Any]:
    return dict(container_body(spec, "one", facts)["HostConfig"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        # no privilege
        ("Privileged", False),
        ("CapDrop", ["ALL"]),
        ("CapAdd", []),
        ("SecurityOpt", ["no-new-privileges:true"]),
        ("ReadonlyRootfs", True),
        # nothing shared
        ("IpcMode", "private"),
        ("CgroupnsMode", "private"),
        ("NetworkMode", "none"),
        ("PublishAllPorts", False),
        ("PortBindings", {}),
        # limits
        ("Memory", 8 * 2**30),
        ("MemorySwap", 8 * 2**30),
        ("NanoCpus", 1_500_000_000),
        ("PidsLimit", 512),
        ("ShmSize", 2**30),
        # life
        ("Init", True),
        ("RestartPolicy", {"Name": "no"}),
        ("DeviceRequests", []),
    ],
)
def test_the_host_config_is_confined(key: str, value: object) -> None:
    assert host_config()[key] == value


@pytest.mark.parametrize(
    "key", ["PidMode", "UTSMode", "UsernsMode", "Devices", "Binds", "VolumesFrom", "Runtime", "Links"]
)
def test_nothing_of_the_host_is_asked_for(key: str) -> None:
    """Absent means the engine's private default."""
    assert key not in host_config()


def test_the_user_is_numeric() -> None:
    """A name would be looked up in the image."""
    assert container_body(SPEC, "one", FACTS)["User"] == "1001:1002"


def test_logs_are_rotated() -> None:
    assert host_config()["LogConfig"] == {"Type": "local", "Config": {"max-size": "20m", "max-file": "3"}}


def test_only_an_unconfined_default_is_overruled() -> None:
    """A site's own seccomp profile stays."""
    assert host_config(facts=replace(FACTS, seccomp="unconfined"))["SecurityOpt"][1:] == ["seccomp=builtin"]
    assert host_config(facts=replace(FACTS, seccomp="/etc/docker/site.json"))["SecurityOpt"][1:] == []


def test_an_engine_without_seccomp_gets_no_environment() -> None:
    with pytest.raises(EngineError) as refusal:
        container_body(SPEC, "one", replace(FACTS, seccomp=""))
    assert refusal.value.code == "engine.unconfined"


def test_mounts_are_binds_that_the_engine_never_makes() -> None:
    home, dataset = host_config()["Mounts"]
    assert (home["Type"], home["Source"], home["Target"], home["ReadOnly"]) == (
        "bind",
        "/srv/home",
        "/home/alice",
        False,
    )
    assert dataset["ReadOnly"]
    assert dataset["BindOptions"] == {"Propagation": "rprivate", "ReadOnlyForceRecursive": True}
    assert "ReadOnlyForceRecursive" not in home["BindOptions"]


def test_an_older_api_is_not_sent_what_it_does_not_know() -> None:
    """Below 1.44 the key would be an error, or be ignored; the report says so."""
    [_home, dataset] = host_config(facts=replace(FACTS, api_version=(1, 43)))["Mounts"]
    assert "ReadOnlyForceRecursive" not in dataset["BindOptions"]


def test_temporary_file_systems_belong_to_the_user() -> None:
    tmpfs = host_config()["Tmpfs"]
    assert set(tmpfs) == {"/tmp", "/run"}
    assert "uid=1001,gid=1002" in tmpfs["/run"]
    assert all({"nosuid", "nodev"} <= set(options.split(",")) for options in tmpfs.values())


def test_limits_are_raised_as_far_as_the_daemon_may() -> None:
    assert ulimits(FACTS) == {"memlock": (-1, -1), "stack": (2**26, 2**26), "nofile": (65_536, 1_048_576)}
    lower = replace(FACTS, ceilings={"memlock": 8 * 2**20, "nofile": 20_000})
    assert ulimits(lower) == {"memlock": (2**23, 2**23), "stack": (2**26, 2**26), "nofile": (20_000, 20_000)}


def ulimits(facts: Facts) -> dict[str, tuple[int, int]]:
    return {each["Name"]: (each["Soft"], each["Hard"]) for each in host_config(facts=facts)["Ulimits"]}


def test_egress_gives_a_network_of_its_own() -> None:
    assert host_config(replace(SPEC, egress=Egress.INTERNET))["NetworkMode"] == "devgw-one.alice.proj"


def test_a_health_check_of_the_image_is_switched_off() -> None:
    """It would be an exec, every few seconds, for ever."""
    assert container_body(SPEC, "one", FACTS)["Healthcheck"] == {"Test": ["NONE"]}


def test_visible_devices_come_last() -> None:
    """Whatever else is set, NVIDIA's runtime reads void."""
    assert container_body(SPEC, "one", FACTS)["Env"] == ["A=1", "NVIDIA_VISIBLE_DEVICES=void"]


PODMAN = replace(FACTS, is_podman=True)
ROOTLESS = replace(PODMAN, maps_users=True, keeps_user=True)
ROOTLESS_DOCKER = replace(FACTS, maps_users=True, keeps_user=True)


def test_podman_is_asked_in_its_own_words() -> None:
    """It refuses a uid of a tmpfs and the driver `local`; `U` is whoever the container runs as."""
    asked = host_config(facts=PODMAN)
    assert asked["Tmpfs"]["/run"].split(",").count("U") == 1
    assert "uid=" not in asked["Tmpfs"]["/run"]
    assert asked["LogConfig"] == {"Type": "k8s-file", "Config": {"max-size": "20m"}}
    assert "UsernsMode" not in asked


def test_podman_without_root_keeps_the_user() -> None:
    """Else the owner of the mounted directories would be another inside."""
    assert host_config(facts=ROOTLESS)["UsernsMode"] == "keep-id"
    assert "Runtime" not in host_config(facts=ROOTLESS)


def test_docker_without_root_keeps_the_user_by_our_runtime() -> None:
    asked = host_config(facts=ROOTLESS_DOCKER)
    assert asked["Runtime"] == "devgw-keep-id"
    assert "UsernsMode" not in asked
    assert "Runtime" not in host_config(facts=FACTS)


def test_an_engine_that_holds_no_limits_is_asked_for_none() -> None:
    """Docker would show them as if they held; processors it refuses. What is more than the host has is told as ever."""
    facts = replace(ROOTLESS_DOCKER, drops_limits=True, processors=2)
    asked = host_config(replace(SPEC, limits=replace(SPEC.limits, cpus=2)), facts)
    assert [asked[name] for name in ("Memory", "MemorySwap", "NanoCpus", "PidsLimit")] == [0, 0, 0, 0]
    assert host_config(facts=FACTS)["Memory"] == SPEC.limits.memory_bytes
    with pytest.raises(EngineError, match="more than the engine's 2"):
        container_body(replace(SPEC, limits=replace(SPEC.limits, cpus=3)), "one", facts)


@pytest.mark.parametrize(("cpus", "is_refused"), [(2.0, False), (2.5, True)])
def test_podman_is_not_asked_for_more_processors_than_it_has(cpus: float, is_refused: bool) -> None:
    """It would take any number; Docker refuses by itself."""
    asked = replace(SPEC, limits=replace(SPEC.limits, cpus=cpus))
    container_body(asked, "one", replace(FACTS, processors=2))
    with pytest.raises(EngineError) if is_refused else nullcontext():
        container_body(asked, "one", replace(PODMAN, processors=2))


def test_docker_without_root_and_without_our_runtime_is_given_no_environment() -> None:
    """It keeps no user, whose mounted directories would be somebody else's inside."""
    with pytest.raises(EngineError) as refusal:
        container_body(SPEC, "one", replace(FACTS, maps_users=True))
    assert refusal.value.code == "engine.maps-users"
    assert "without root" in refusal.value.message
    assert "'devgw-keep-id'" in refusal.value.hint


def test_docker_that_remaps_users_is_given_no_environment() -> None:
    """With root, and yet nobody inside would own their directories."""
    remapping = facts_of(
        HEALTHY_INFO | {"SecurityOptions": ["name=seccomp,profile=builtin", "name=userns"]}, "1.47", {}
    )
    with pytest.raises(EngineError) as refusal:
        container_body(SPEC, "one", remapping)
    assert refusal.value.code == "engine.maps-users"
    assert "'userns-remap'" in refusal.value.hint


@pytest.mark.parametrize("facts", [ROOTLESS, ROOTLESS_DOCKER], ids=["podman", "docker"])
@pytest.mark.parametrize(("owner", "is_refused"), [(SPEC.uid, False), (None, False), (SPEC.uid + 1, True)])
def test_an_engine_without_root_is_given_environments_of_its_own_user(
    facts: Facts, owner: int | None, is_refused: bool
) -> None:
    """Any other user would own nothing inside of what is mounted for them."""
    with pytest.raises(EngineError, match=f"{facts.product} runs .* keeps no other") if is_refused else nullcontext():
        container_body(SPEC, "one", replace(facts, owner=owner))


@pytest.mark.parametrize("facts", [ROOTLESS, ROOTLESS_DOCKER], ids=["podman", "docker"])
def test_an_engine_without_root_gives_no_network_that_nobody_could_close(facts: Facts) -> None:
    asked = replace(SPEC, egress=Egress.INTERNET)
    assert container_body(asked, "one", PODMAN)["HostConfig"]["NetworkMode"].startswith("devgw-one.")
    with pytest.raises(EngineError, match=f"{facts.product} without root") as refusal:
        container_body(asked, "one", facts)
    assert refusal.value.code == "egress.unavailable"
    assert "egress_hosts" in refusal.value.hint
