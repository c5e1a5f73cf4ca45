"""What an environment may not: invariants 1, 3, 4, 6 and 11, tried on a real engine."""

import json

import docker
import pytest

from tests.e2e.conftest import ServedUsers
from tests.support.gateway_process import GatewayProcess

pytestmark = pytest.mark.engine


def container_of(client: docker.APIClient, served_users: ServedUsers, user: str) -> dict[str, object]:
    """Return what `docker inspect` says of a user's container in this gateway."""
    mounted = str(served_users.gateway.root / "state")
    found = [
        client.inspect_container(each["Id"]) for each in client.containers(filters={"label": f"devgw.user={user}"})
    ]
    return next(each for each in found if any(mount["Source"].startswith(mounted) for mount in each["Mounts"]))


@pytest.mark.docker
def test_inspect_shows_no_capability_no_published_port_and_no_secret(
    served_users: ServedUsers, docker_client: docker.APIClient
):
    """`docker inspect` of alice's container, as a curious administrator would read it."""
    inspected = container_of(docker_client, served_users, "alice")
    host, text = inspected["HostConfig"], json.dumps(inspected)
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["PortBindings"]
    assert not host["Privileged"]
    assert "no-new-privileges" in ",".join(host["SecurityOpt"])
    assert served_users.passwords["alice"] not in text
    assert "$2b$" not in text
    assert "PRIVATE KEY" not in text


def test_nothing_runs_as_root_or_with_a_capability(gateway: GatewayProcess):
    """Every process in the environment, sshd included."""
    read = "for p in /proc/[0-9]*; do grep -hE '^(Uid|CapEff|CapBnd|NoNewPrivs):' $p/status; done | sort | uniq -c"
    seen = gateway.ssh("alice", read).stdout.decode()
    assert "Uid:\t0" not in seen
    masks = {line.split()[-1] for line in seen.splitlines() if "Cap" in line}
    assert masks == {"0000000000000000"}
    assert {line.split()[-1] for line in seen.splitlines() if "NoNewPrivs" in line} == {"1"}


def test_two_users_cannot_reach_each_others_notebook_by_any_address(gateway: GatewayProcess):
    """From inside bob's environment and through bob's forwards, no address leads to alice's notebook or the host."""
    addresses = (
        gateway.ssh("alice", "cat /proc/net/fib_trie | grep -oE '[0-9]+(\\.[0-9]+){3}' | sort -u")
        .stdout.decode()
        .split()
    )
    targets = [address for address in {*addresses, "192.0.2.2", "172.17.0.1"} if not address.startswith(("127.", "0."))]
    for address in targets:
        done = gateway.ssh("bob", f"timeout 3 bash -c '</dev/tcp/{address}/8888'")
        assert done.returncode != 0, f"bob reached {address}"
        refused = gateway.ssh("bob", "-W", f"{address}:8888")
        assert refused.returncode == 255, f"bob was forwarded to {address}"
    assert gateway.ssh("bob", "ls /run/devgw; ls -d /home/*").stdout.decode().split()[-1] == "/home/bob"


def test_localhost_in_a_forward_is_the_environments_not_the_gateways(gateway: GatewayProcess):
    """The gateway's own port is not behind its users' `localhost`."""
    done = gateway.ssh("alice", "-W", f"localhost:{gateway.port}")
    assert b"SSH-2.0" not in done.stdout


def test_the_leased_gpu_and_no_other_is_visible(gateway: GatewayProcess, gpus: tuple[str, ...]):
    """Alice has one GPU by UUID, bob none."""
    alice = gateway.ssh(
        "alice", "cat /proc/1/environ | tr '\\0' '\\n' | grep TEST_GPU; ls /dev | grep nvidia"
    ).stdout.decode()
    bob = gateway.ssh("bob", "ls /dev | grep -c nvidia; echo $NVIDIA_VISIBLE_DEVICES").stdout.decode().split()
    leased = gateway.devgw_json("show", "alice")["environment"]["gpus"]
    assert len(leased) == 1
    assert leased[0] in gpus
    assert leased[0] in alice
    assert alice.count("nvidia") == 1
    assert bob[0] == "0"


def test_root_unknown_users_and_wrong_keys_are_told_the_same(gateway: GatewayProcess):
    """One answer for all who may not log in."""
    stranger = gateway.make_key("stranger")
    answers = set()
    for user in ("root", "nobody", "carol", "alice"):
        options = [
            option.replace(str(gateway.make_key(user)), str(stranger)) for option in gateway.client_options(user)
        ]
        import subprocess

        command = ["ssh", *options, "-p", str(gateway.port), f"{user}@127.0.0.1", "true"]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        answers.add((done.returncode, done.stderr.replace(user.encode(), b"USER")))
    assert len(answers) == 1
    assert b"(publickey)" in next(iter(answers))[1]
