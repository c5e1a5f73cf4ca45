"""Hosts outside by name, on a real engine: an environment without a network, its own tools, and a real index."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.attacks.outside import PUBLIC
from tests.support.engine_variables import engine_variables
from tests.support.gateway_process import GatewayProcess, poll
from tests.support.hosts_outside import INDEX, OTHER, PROJECT, HostsOutside, git_over_ssh, hosts_outside

pytestmark = pytest.mark.engine

ROLE = """
version = 1
default_roles = ["member"]
[roles.member]
sessions = ["shell", "exec", "sftp"]
permit_open = "any-loopback"
max_environments = 1
images = ["*"]
max_memory = "64GiB"
max_cpus = 64
egress_hosts = [{hosts}]
"""
OPEN = f'"{INDEX}:443,80,22", "inside.example.net", "*.names.example.net"'
NAMES = {"inside.example.net": "10.77.0.1", "closed.example.net": PUBLIC, "a.names.example.net": PUBLIC}


class Site:
    """A gateway with alice in it, and what is outside."""

    def __init__(self, gateway: GatewayProcess, hosts: HostsOutside) -> None:
        self.gateway = gateway
        self.hosts = hosts

    def allow(self, hosts: str) -> None:
        """Put another policy in place."""
        fresh = self.gateway.root / "etc" / "policy.new"
        fresh.write_text(ROLE.format(hosts=hosts))
        fresh.rename(self.gateway.root / "etc" / "policy.toml")

    def inside(self, script: str, *, user: str = "alice", expect: int | None = 0) -> str:
        """Run a script in an environment; return both its outputs."""
        done = self.gateway.ssh(user, f"exec 2>&1\n{script}")
        text = done.stdout.decode()
        assert expect is None or done.returncode == expect, text + done.stderr.decode()
        return text

    def records(self, action: str) -> list[dict[str, Any]]:
        """Return the journal's events of one code."""
        text = self.gateway.devgw("audit", "log", "--action", action, "-o", "json").stdout
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with hosts_outside(tmp_path_factory.mktemp("outside")) as hosts:
        gateway = GatewayProcess(tmp_path_factory.mktemp("gateway"), engine_variables())
        site = Site(gateway, hosts)
        try:
            gateway.devgw("init")
            site.allow(OPEN)
            gateway.launcher = hosts.launcher(NAMES)
            gateway.create("alice")
            gateway.serve()
            poll(lambda: "yes" in site.inside("test -S /etc/devgw/env/egress.sock && echo yes", expect=None), "a door")
            site.inside(f"cat >~/ca.pem <<'END'\n{hosts.ca.read_text()}END")
            yield site
        finally:
            gateway.close()


@pytest.mark.emits("egress-host.allowed", "egress-host.closed")
def test_pip_installs_from_a_named_host_without_a_network(site: Site) -> None:
    """No interface but loopback, no resolver, and yet: the variables that every session has lead pip to the index."""
    assert site.inside("tail -n +3 /proc/net/dev | cut -d: -f1").split() == ["lo"]
    index = f"--index-url https://{INDEX}/simple/ --cert ~/ca.pem"
    site.inside(f"pip install --no-cache-dir --disable-pip-version-check {index} {PROJECT}")
    assert site.inside(f"python -c 'import {PROJECT}; print({PROJECT}.word)'").strip() == "by name"
    [allowed, *_] = site.records("egress-host.allowed")
    assert allowed["detail"] == {"action": "egress-host", "host": INDEX, "port": 443}
    assert "egress_hosts" in str(allowed["rule"])
    closed = poll(lambda: site.records("egress-host.closed"), "the record of its end")[0]
    assert closed["environment"] == "alice"
    assert closed["detail"]["host"] == INDEX
    assert closed["detail"]["received_bytes"] > 500
    assert closed["detail"]["sent_bytes"] > 200


@pytest.mark.emits("egress-host.denied")
def test_a_closed_host_is_refused_at_once_and_pip_says_whom_to_ask(site: Site) -> None:
    output = site.inside(
        "pip download --retries 1 --cert ~/ca.pem --index-url https://closed.example.net/simple/ x", expect=1
    )
    assert "no role permits connections to 'closed.example.net' port 443" in output
    assert "ask the administrator of this gateway" in output
    [denied, *_] = site.records("egress-host.denied")
    assert str(denied["reference"]) in output


def test_git_and_ssh_go_the_same_way(site: Site) -> None:
    """By ssh's configuration, which the image brings: nobody has to know of the proxy."""
    with git_over_ssh(site.hosts) as key:
        site.inside(f"install -m 600 /dev/stdin ~/key <<'END'\n{key.read_text()}END")
        ssh = "ssh -i ~/key -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        repository = f"root@{INDEX}:{site.hosts.folder}/repository"
        site.inside(f"GIT_SSH_COMMAND='{ssh}' git clone -q {repository} ~/cloned")
        assert site.inside("cat ~/cloned/read.me") == "cloned by name\n"
        refused = site.inside(f"{ssh} root@closed.example.net true", expect=255)
        assert "no role permits connections to 'closed.example.net' port 22" in refused


def test_curl_goes_by_name_in_plain_http_too(site: Site) -> None:
    assert site.inside(f"curl -sS http://{INDEX}/host") == INDEX
    assert site.inside(f"curl -sS -d 'some words' http://{INDEX}/echo") == "some words"
    lied = site.inside(f"curl -sS -H 'Host: {OTHER}' http://{INDEX}/host")
    assert lied == INDEX
    moved = site.inside(f"curl -sS -L --cacert ~/ca.pem https://{INDEX}/moved", expect=56)
    assert "403" in moved


@pytest.mark.attack("C20", "a permitted name that leads to a private address, from a real environment")
@pytest.mark.emits("egress-host.refused")
def test_a_name_that_leads_inside_is_refused(site: Site) -> None:
    """The policy permits the name; where its owner lets it lead is not the owner's to decide alone."""
    refused = site.inside("curl -sS -v https://inside.example.net/", expect=56)
    assert "leads to no public address" in refused
    assert "10.77.0.1" not in refused.replace("127.0.0.1", "")
    reasons = [str(found["reason"]) for found in site.records("egress-host.refused")]
    assert any("10.77.0.1 is not a public address" in reason for reason in reasons)


@pytest.mark.attack("C21", "another site at the same address, from a real environment")
def test_tls_for_another_name_is_cut(site: Site) -> None:
    """`--connect-to` has curl ask for the one and speak to the other, which is at the same address."""
    cut = site.inside(
        f"curl -sS --cacert ~/ca.pem --connect-to {OTHER}:443:{INDEX}:443 https://{OTHER}/host", expect=None
    )
    assert OTHER not in cut.splitlines()
    reasons = [str(found["reason"]) for found in site.records("egress-host.refused")]
    assert f"TLS for '{OTHER}', but {INDEX} was asked for" in reasons


def test_a_person_who_logs_in_reads_what_is_open(site: Site) -> None:
    shown = site.gateway.ssh("alice", "-tt", "bash -lc true").stdout.decode()
    assert f"by name: {INDEX}:22,80,443" in shown
    assert "for others ask the administrator of this gateway" in shown


@pytest.mark.attack("C24", "a connection outside that is held while the policy takes its name away")
def test_a_policy_that_changes_cuts_what_is_open(site: Site) -> None:
    """And the sockets go with the last name."""
    hold = (
        f"/opt/devgw/bin/python -I -m devgw_environment connect {INDEX} 80 < <(exec sleep 60 2>/dev/null); echo ended"
    )
    before = len(site.records("egress-host.allowed"))
    slow = subprocess.Popen(site.gateway.ssh_command("alice", hold), stdout=subprocess.PIPE)
    try:
        poll(lambda: len(site.records("egress-host.allowed")) > before, "the connection")
        site.allow('"other.names.example.net"')
        assert b"ended" in slow.communicate(timeout=30)[0]
    finally:
        slow.kill()
        slow.wait(10)
    reasons = [str(found["reason"]) for found in site.records("egress-host.closed")]
    assert any(reason.startswith("no longer permitted: no role permits") for reason in reasons)
    site.allow("")
    poll(
        lambda: site.inside("ls /etc/devgw/env/egress.sock", expect=None).endswith("No such file or directory\n"),
        "no door",
    )
    site.allow(OPEN)
    poll(
        lambda: site.inside("ls /etc/devgw/env/egress.sock", expect=None) == "/etc/devgw/env/egress.sock\n", "it again"
    )
    assert site.inside(f"curl -sS http://{INDEX}/host") == INDEX
