"""What the engine does when a daemon refuses, breaks off or is missing. The everyday is in tests/contract."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.engines.docker.connection import Connection
from gateway.engines.docker.engine import DockerEngine
from gateway.errors import ConfigError, ConflictError, EngineError
from gateway.model import Egress, EnvironmentRef, EnvironmentSpec, GpuUuid, Limits, Mount
from tests.fakes.docker_daemon import DROP, ScriptedDaemon, scripted_daemon
from tests.fakes.packet_filter import RememberedFilter

ALICE = EnvironmentRef.parse("alice")
NAME = "devgw-one.alice.main"
NETWORK = {"Id": "n1", "Name": NAME, "Labels": {"devgw.gateway": "one", "devgw.user": "alice", "devgw.name": "main"}}
A_GPU = GpuUuid("GPU-00000000-0000-4000-8000-000000000000")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[ScriptedDaemon]:
    with scripted_daemon(tmp_path) as daemon:
        yield daemon


@pytest.fixture
def engine(daemon: ScriptedDaemon) -> Iterator[DockerEngine]:
    engine = DockerEngine(daemon.url, "one", RememberedFilter())
    yield engine
    engine.close()


def spec(egress: Egress = Egress.INTERNET, gpus: tuple[GpuUuid, ...] = ()) -> EnvironmentSpec:
    return EnvironmentSpec(ALICE, 1000, 1000, "img", Limits(2**30, 1, 100, 2**20), (), gpus=gpus, egress=egress)


def refusal(engine: DockerEngine, spec_: EnvironmentSpec) -> EngineError:
    with pytest.raises(EngineError) as caught:
        engine.create(spec_)
    return caught.value


def leaves_network(daemon: ScriptedDaemon) -> None:
    """Let the daemon know the network that create made."""
    daemon.answers |= {
        "GET /networks": (200, [NETWORK]),
        "GET /networks/n1": (200, {"Containers": {}}),
        "DELETE /networks/n1": (204, None),
    }


def test_a_full_disk_during_create_is_named_and_the_network_removed(
    engine: DockerEngine, daemon: ScriptedDaemon
) -> None:
    leaves_network(daemon)
    daemon.answers["POST /containers/create"] = (500, {"message": "mkdir /var/lib/x: no space left on device"})
    error = refusal(engine, spec())
    assert (error.code, error.message) == ("engine.no-space", "the engine could not create alice: its disk is full")
    assert "docker system df" in error.hint
    assert "DELETE /networks/n1" in daemon.asked


def test_a_daemon_killed_during_create_is_unreachable_and_cleaned_up_as_far_as_it_goes(
    engine: DockerEngine, daemon: ScriptedDaemon
) -> None:
    """It may have made the container before it died: the engine looks for it and removes it."""
    leaves_network(daemon)
    daemon.answers["POST /containers/create"] = DROP
    daemon.answers[f"GET /containers/{NAME}/json"] = (404, {"message": "No such container"})
    error = refusal(engine, spec())
    assert error.code == "engine.unreachable"
    assert daemon.asked.count(f"GET /containers/{NAME}/json") == 2
    assert "DELETE /networks/n1" in daemon.asked


def test_a_failing_clean_up_does_not_hide_the_reason(engine: DockerEngine, daemon: ScriptedDaemon) -> None:
    daemon.answers["POST /containers/create"] = (500, {"message": "first"})
    daemon.answers["GET /networks"] = (500, {"message": "second"})
    assert refusal(engine, spec()).message == "the engine could not create alice: first"


@pytest.mark.parametrize(
    "answer",
    [
        (409, {"message": f'The container name "/{NAME}" is already in use'}),
        (500, {"message": f'container create: the container name "{NAME}" …: that name is already in use'}),  # Podman
    ],
)
def test_a_container_made_by_somebody_quicker_is_a_conflict_and_stays(
    engine: DockerEngine, daemon: ScriptedDaemon, answer: tuple[int, dict[str, str]]
) -> None:
    """Its network is the winner's too."""
    daemon.answers["POST /containers/create"] = answer
    with pytest.raises(ConflictError):
        engine.create(spec())
    assert not [request for request in daemon.asked if request.startswith("DELETE")]


def test_a_network_left_by_a_killed_create_is_kept_when_the_next_create_fails_too(
    engine: DockerEngine, daemon: ScriptedDaemon
) -> None:
    """Only what this create made is given back: the other may be at work still."""
    leaves_network(daemon)
    daemon.answers["POST /networks/create"] = (409, {"message": "network with name already exists"})
    daemon.answers["POST /containers/create"] = (500, {"message": "no"})
    refusal(engine, spec())
    assert "DELETE /networks/n1" not in daemon.asked


@pytest.mark.parametrize("answer", [(200, {"StatusCode": 0}), (404, {"message": "No such container: c1"})])
def test_a_removal_under_way_is_waited_for(
    engine: DockerEngine, daemon: ScriptedDaemon, answer: tuple[int, dict[str, object]]
) -> None:
    """Two deletes at once: the second returns when the first is through, or was just before it asked."""
    daemon.answers |= {
        f"GET /containers/{NAME}/json": (200, {"Id": "c1", "Config": {"Labels": NETWORK["Labels"]}}),
        "DELETE /containers/c1": (409, {"message": "removal of container c1 is already in progress"}),
        "POST /containers/c1/wait": answer,
    }
    engine.delete(ALICE)
    assert "POST /containers/c1/wait" in daemon.asked


@pytest.mark.parametrize(("memory", "is_counted"), [(2**30, True), (0, False)])
def test_a_container_without_limits_is_not_measured(
    engine: DockerEngine, daemon: ScriptedDaemon, memory: int, is_counted: bool
) -> None:
    """Docker without root and without control groups answers with what the whole host uses."""
    inspected = {"State": {"Running": True}, "HostConfig": {"Memory": memory}, "Config": {"Labels": NETWORK["Labels"]}}
    counted = {"cpu_stats": {"cpu_usage": {"total_usage": 2e13}}, "memory_stats": {"usage": 2**32}}
    daemon.answers |= {
        f"GET /containers/{NAME}/json": (200, {"Id": "c1", **inspected}),
        "GET /containers/c1/stats": (200, counted),
    }
    assert (engine.load(ALICE) is not None) is is_counted


def test_podmans_network_is_closed_before_its_bridge_is_made(daemon: ScriptedDaemon) -> None:
    """The bridge comes with the start; without a resolver at its end, which the filter would close anyway."""
    daemon.info["BuildahVersion"] = "1.39.3"
    daemon.answers["POST /v4.0.0/libpod/networks/create"] = (200, {"id": "n1"})
    rules = RememberedFilter()
    DockerEngine(daemon.url, "one", rules).create(spec())
    [(bridge, egress)] = rules.confined.items()
    asked = daemon.bodies["POST /v4.0.0/libpod/networks/create"]
    assert (asked["network_interface"], egress, rules.is_made) == (bridge, Egress.INTERNET, False)
    assert (asked["dns_enabled"], asked["labels"]) == (False, NETWORK["Labels"])
    assert "POST /networks/create" not in daemon.asked


def test_a_network_that_podman_refuses_is_named(engine: DockerEngine, daemon: ScriptedDaemon) -> None:
    daemon.info["BuildahVersion"] = "1.39.3"
    daemon.answers["POST /v4.0.0/libpod/networks/create"] = (500, {"message": "could not find free subnet"})
    error = refusal(engine, spec())
    assert error.code == "engine.no-network"
    assert "POST /containers/create" not in daemon.asked


@pytest.mark.parametrize(("is_there", "code"), [(False, "mount.missing"), (True, "engine.failed")])
def test_a_start_that_fails_names_a_mount_whose_source_went_away(
    engine: DockerEngine, daemon: ScriptedDaemon, tmp_path: Path, is_there: bool, code: str
) -> None:
    """Each runtime has words of its own for it, so the mounts are looked at."""
    source = tmp_path / "data"
    if is_there:
        source.mkdir()
    mounts = [{"Type": "tmpfs", "Source": "", "Destination": "/tmp"}]
    mounts += [{"Type": "bind", "Source": str(source), "Destination": "/data"}]
    daemon.answers |= {
        f"GET /containers/{NAME}/json": (200, {"Id": "c1", "Config": {"Labels": NETWORK["Labels"]}, "Mounts": mounts}),
        "POST /containers/c1/start": (500, {"message": "crun: cannot stat something: OCI runtime error"}),
    }
    with pytest.raises(EngineError) as caught:
        engine.start(ALICE)
    assert caught.value.code == code
    assert (str(source) in caught.value.message) is not is_there


def test_gpus_are_injected_by_cdi_with_an_explicit_driver(engine: DockerEngine, daemon: ScriptedDaemon) -> None:
    """So that the daemon cannot fall back to the hook in silence."""
    engine.create(spec(gpus=(A_GPU,)))
    body = daemon.bodies["POST /containers/create"]
    [request] = body["HostConfig"]["DeviceRequests"]
    assert (request["Driver"], request["DeviceIDs"]) == ("cdi", [f"nvidia.com/gpu={A_GPU}"])
    assert "NVIDIA_VISIBLE_DEVICES=void" in body["Env"]


def test_without_cdi_the_runtime_hook_is_used_and_reported(engine: DockerEngine, daemon: ScriptedDaemon) -> None:
    daemon.info |= {"CDISpecDirs": [], "Runtimes": {"runc": {}, "nvidia": {}}}
    engine.create(spec(gpus=(A_GPU,)))
    body = daemon.bodies["POST /containers/create"]
    [request] = body["HostConfig"]["DeviceRequests"]
    assert (request["Driver"], request["DeviceIDs"]) == ("nvidia", [A_GPU])
    assert f"NVIDIA_VISIBLE_DEVICES={A_GPU}" in body["Env"]
    assert engine.report().gpu_injection == "runtime-hook"


def test_a_gpu_that_a_newer_daemon_does_not_list_is_refused_before_anything_is_made(
    engine: DockerEngine, daemon: ScriptedDaemon
) -> None:
    """API 1.50 tells its CDI devices; after a MIG change the list is stale."""
    daemon.info["DiscoveredDevices"] = [{"Source": "cdi", "ID": "nvidia.com/gpu=other"}]
    error = refusal(engine, spec(gpus=(A_GPU,)))
    assert error.code == "gpu.injection"
    assert "nvidia-cdi-refresh" in error.hint
    assert not [request for request in daemon.asked if request.startswith("POST")]


def test_a_remote_daemon_decides_itself_whether_a_source_is_there(tmp_path: Path, daemon: ScriptedDaemon) -> None:
    """Its files are not ours; its refusal means the same."""
    daemon.answers["POST /containers/create"] = (
        400,
        {"message": 'invalid mount config for type "bind": bind source path does not exist: /data'},
    )
    engine = DockerEngine(daemon.url, "one", RememberedFilter())
    mounted = EnvironmentSpec(ALICE, 1, 1, "img", Limits(2**30, 1, 100, 2**20), (Mount(tmp_path, "/data"),))
    assert refusal(engine, mounted).code == "mount.missing"
    engine.close()


def test_no_socket_is_unreachable_and_named(tmp_path: Path) -> None:
    engine = DockerEngine(f"unix://{tmp_path}/none.sock", "one")
    with pytest.raises(EngineError) as caught:
        engine.observe_all()
    assert caught.value.code == "engine.unreachable"
    assert f"{tmp_path}/none.sock" in caught.value.message
    assert caught.value.hint


def test_a_daemon_that_hangs_is_unreachable_within_the_timeout(tmp_path: Path) -> None:
    """It takes the connection and never answers."""
    path = tmp_path / "hung.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(EngineError) as caught, Connection(f"unix://{path}", timeout_seconds=1).asked_to("answer"):
            pass
    assert caught.value.code == "engine.unreachable"
    assert "in time" in caught.value.message


def test_a_daemon_that_comes_up_later_is_found(tmp_path: Path) -> None:
    """The gateway may start before the engine."""
    engine = DockerEngine(f"unix://{tmp_path}/d.sock", "one")
    with pytest.raises(EngineError):
        engine.observe_all()
    with scripted_daemon(tmp_path):
        assert engine.observe_all() == []
    engine.close()


@pytest.mark.parametrize("gateway_id", ["", "A", "a.b", "a_b", "-a", "a" * 32, "a\n"])
def test_a_gateway_id_that_cannot_stand_in_a_name_is_refused(gateway_id: str) -> None:
    with pytest.raises(ConfigError):
        DockerEngine("unix:///none.sock", gateway_id)
