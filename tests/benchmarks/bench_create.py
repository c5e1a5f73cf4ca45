"""`devgw create` beside a bare `docker run` of the same image, both until ssh and the notebook answer.

`tests/setup/with_engine .venv/bin/python -m tests.benchmarks.bench_create`; needs Docker and its command line. The
bare run mounts the same directories and has none of the rest: no network of its own, no limits, nothing dropped.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import docker

from gateway.engines.run_directory import RunDirectory
from gateway.environments.readiness import answers
from tests.benchmarks.result import Result, table
from tests.support.engine_variables import engine_variables
from tests.support.gateway_process import GatewayProcess, poll

ROUNDS = 7


def run_bare(like: dict[str, Any], run_directory: Path) -> float:
    """Run a container with another's image, user and mounts; return the seconds until both services answer."""
    uid = int(like["Config"]["User"].partition(":")[0])
    began = time.perf_counter()
    started = subprocess.run(
        ["docker", "run", "-d", *_options(like)], check=True, capture_output=True, text=True, timeout=60
    )
    place = RunDirectory(run_directory, uid)
    services = ("ssh", "notebook")
    poll(lambda: all(answers(partial(place.dial, name), name) for name in services), "the bare container")
    taken = time.perf_counter() - began
    subprocess.run(["docker", "rm", "-f", started.stdout.strip()], check=True, capture_output=True, timeout=60)
    return taken


def _options(like: dict[str, Any]) -> Iterator[str]:
    config, host_config = like["Config"], like["HostConfig"]
    yield from ("--user", config["User"])
    for variable in config["Env"]:
        yield from ("-e", variable)
    for mount in like["Mounts"]:
        yield from ("-v", f"{mount['Source']}:{mount['Destination']}:{'rw' if mount['RW'] else 'ro'}")
    for target, options in (host_config.get("Tmpfs") or {}).items():
        yield from ("--tmpfs", f"{target}:{options}")
    yield config["Image"]
    yield from config["Cmd"] or ()


def main() -> None:
    """Measure in pairs and print the row."""
    client = docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="auto")
    ours, theirs = [], []
    with tempfile.TemporaryDirectory(prefix="devgw-bench-") as root:
        gateway = GatewayProcess(Path(root), engine_variables())
        try:
            gateway.devgw("init")
            for number in range(ROUNDS + 1):
                user = f"user{number}"
                gateway.make_key(user)
                before = {container["Id"] for container in client.containers()}
                began = time.perf_counter()
                gateway.create(user)
                taken = time.perf_counter() - began
                made = client.inspect_container(
                    next(found["Id"] for found in client.containers() if found["Id"] not in before)
                )
                client.remove_container(made["Id"], force=True)
                bare = run_bare(made, Path(_source(made, "/run/devgw")))
                if number:  # the first warms the page cache
                    ours.append(taken)
                    theirs.append(bare)
        finally:
            gateway.close()
            client.close()
    pairs = tuple(ours), tuple(theirs)
    print(table([Result("create, until ssh and notebook answer", "docker run", "s", 1.25, False, *pairs)]))


def _source(container: dict[str, Any], target: str) -> str:
    return next(str(mount["Source"]) for mount in container["Mounts"] if mount["Destination"] == target)


if __name__ == "__main__":
    main()
