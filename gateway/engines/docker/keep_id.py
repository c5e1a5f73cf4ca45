"""An OCI runtime for Docker without root, which keeps a container's user: runc, with one more user namespace.

There the user who runs Docker is root, and every other id inside a container is one of their subordinate ids outside.
In a further namespace, that of the container, their own id is its user's id again, as Podman's `keep-id` has it. Docker
calls this program in place of runc for containers that ask for it; it needs nothing but Python's own library.

Source: the OCI runtime specification, config-linux.md, "User namespace mappings"; user_namespaces(7).
"""

import json
import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

RUNTIME = "devgw-keep-id"
"""Its name in Docker's `daemon.json`, and on the command line."""

_GLOBAL = {"--root", "--log", "--log-format", "--criu", "--rootless"}
"""Options of runc's own that are followed by a value."""

_UID_MAP, _GID_MAP = Path("/proc/self/uid_map"), Path("/proc/self/gid_map")


def main() -> None:
    """Do what runc is asked; where that is to make a container, its namespaces are changed before."""
    arguments = sys.argv[1:]
    try:
        bundle = bundle_in(arguments)
        if bundle is not None:
            place = bundle / "config.json"
            changed = kept(json.loads(place.read_text()), _UID_MAP.read_text(), _GID_MAP.read_text())
            place.write_text(json.dumps(changed))
        os.execvp("runc", ["runc", *arguments])  # noqa: S606 found where Docker finds it
    except (OSError, ValueError, KeyError) as exc:
        sys.exit(f"{RUNTIME}: error: {exc}")


def bundle_in(arguments: Sequence[str]) -> Path | None:
    """Return the directory of a container that is to be made; None for every other command."""
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        del rest[: 2 if rest[0] in _GLOBAL else 1]
    if not rest or rest[0] not in {"create", "run"}:
        return None
    for name, value in pairwise(rest):
        if name in {"--bundle", "-b"}:
            return Path(value)
        if name.startswith("--bundle="):
            return Path(name.removeprefix("--bundle="))
    return Path()


def kept(config: dict[str, Any], uid_map: str, gid_map: str) -> dict[str, Any]:
    """Return a container's configuration with a user namespace in which its user is the one who runs Docker.

    Raises:
        ValueError: Docker runs with root, so root itself would be that user; or the container's user is root.
    """
    user, linux = config["process"]["user"], config["linux"]
    others = [one for one in linux["namespaces"] if one["type"] != "user"]
    changed = {
        "namespaces": [*others, {"type": "user"}],
        "uidMappings": mappings(int(user["uid"]), uid_map),
        "gidMappings": mappings(int(user["gid"]), gid_map),
    }
    return {**config, "linux": {**linux, **changed}}


def mappings(identity: int, own: str) -> list[dict[str, int]]:
    """Return what maps an id inside to 0 of this namespace, and the others to the rest; `own` is its own map.

    Raises:
        ValueError: 0 of this namespace is no ordinary user of the one around it, or the id is 0.
    """
    ranges = [tuple(map(int, line.split())) for line in own.splitlines()]
    alone = [outside for inside, outside, length in ranges if inside == 0 and length == 1]
    if not alone or alone == [0]:  # RootlessKit maps its user to 0 in a range of one; a Docker with root has many ids
        raise ValueError("it is for Docker without root: here root itself would be the container's user")
    if identity == 0:
        raise ValueError("a container of root cannot be kept: give it a user")
    available = sum(length for _, _, length in ranges)
    below = min(identity, available - 1)
    found = [(0, 1, below), (identity, 0, 1), (identity + 1, below + 1, available - below - 1)]
    return [{"containerID": inside, "hostID": here, "size": size} for inside, here, size in found if size > 0]


if __name__ == "__main__":
    main()
