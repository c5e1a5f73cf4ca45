"""The runtime that keeps a user where Docker runs without root."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.engines.docker import keep_id
from gateway.engines.docker.keep_id import bundle_in, kept, mappings

ROOTLESS = "0 1000 1\n1 100000 65536\n"
ALL = "0 0 4294967295\n"


def outside(identity: int, found: list[dict[str, int]]) -> int | None:
    """Follow an id of the container into the namespace of Docker."""
    for one in found:
        if one["containerID"] <= identity < one["containerID"] + one["size"]:
            return one["hostID"] + identity - one["containerID"]
    return None


@pytest.mark.parametrize("identity", [1, 1000, 61_234, 65_536, 1_000_000])
def test_the_user_is_the_one_who_runs_docker(identity: int) -> None:
    """Every other id that there is stays one of the subordinate ids, none is had twice, none is lost."""
    found = mappings(identity, ROOTLESS)
    assert outside(identity, found) == 0
    assert sum(one["size"] for one in found) == 65_537
    taken = sorted(number for one in found for number in range(one["hostID"], one["hostID"] + one["size"]))
    assert taken == list(range(65_537))
    assert outside(0, found) == 1


@pytest.mark.parametrize(
    ("own", "identity", "words"),
    [
        (ALL, 1000, "without root"),
        ("0 0 1\n", 1000, "without root"),
        ("0 100000 65536\n", 1000, "without root"),  # as in an unprivileged system container: root of that one
        ("", 1000, "without root"),
        (ROOTLESS, 0, "of root"),
    ],
)
def test_nobody_inside_becomes_root_of_the_host(own: str, identity: int, words: str) -> None:
    """Docker with root has a map from 0 to 0: there the container's user would be root itself."""
    with pytest.raises(ValueError, match=words):
        mappings(identity, own)


def test_nothing_else_of_a_container_is_changed() -> None:
    config = {
        "process": {"user": {"uid": 1000, "gid": 1001}, "capabilities": {}},
        "root": {"readonly": True},
        "linux": {"namespaces": [{"type": "pid"}, {"type": "network", "path": "/n"}], "seccomp": {"a": 1}},
    }
    changed = kept(config, ROOTLESS, "0 1001 1\n1 100000 65536\n")
    assert changed["linux"]["namespaces"] == [*config["linux"]["namespaces"], {"type": "user"}]
    assert outside(1001, changed["linux"]["gidMappings"]) == 0
    for part in (changed, config):
        del part["linux"]["namespaces"]
    for key in ("uidMappings", "gidMappings"):
        del changed["linux"][key]
    assert changed == config


@pytest.mark.parametrize(
    ("arguments", "bundle"),
    [
        (["--root", "/r", "create", "--bundle", "/b", "id"], Path("/b")),
        (["--log=/l", "--debug", "create", "-b", "/b", "id"], Path("/b")),
        (["run", "--bundle=/b", "id"], Path("/b")),
        (["create", "id"], Path()),
        (["--root", "/r", "start", "id"], None),
        (["--root", "create", "state", "create"], None),
        ([], None),
    ],
)
def test_only_what_makes_a_container_is_changed(arguments: list[str], bundle: Path | None) -> None:
    assert bundle_in(arguments) == bundle


def test_docker_reads_one_line_where_it_cannot_be_done(tmp_path: Path) -> None:
    """As a program, outside of any user namespace or with a container of root: runc is not reached."""
    config = {"process": {"user": {"uid": 0, "gid": 0}}, "linux": {"namespaces": []}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, keep_id.__file__, "create", "--bundle", str(tmp_path), "id"],
        capture_output=True, text=True, check=False, timeout=60, env={"PATH": "/nowhere"},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("devgw-keep-id: error: ")
    assert done.stderr.count("\n") == 1
    assert json.loads((tmp_path / "config.json").read_text()) == config


def test_runc_is_asked_what_docker_asked(tmp_path: Path) -> None:
    runc = tmp_path / "runc"
    runc.write_text('#!/bin/sh\necho "$@"\n')
    runc.chmod(0o755)
    done = subprocess.run(
        [sys.executable, keep_id.__file__, "--root", "/r", "kill", "id", "9"],
        capture_output=True, text=True, check=True, timeout=60, env={"PATH": f"{tmp_path}:{os.defpath}"},
    )  # fmt: skip
    assert done.stdout == "--root /r kill id 9\n"
