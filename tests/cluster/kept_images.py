"""Images that both nodes have from the start: what containerd unpacked once, kept in the cache as hard links.

An environment's image has two gigabytes, and to import it takes minutes for each node. Nothing writes to files that are
unpacked: a container's own are beside them. Databases are copied.
"""

import os
import shutil
import subprocess
from pathlib import Path

import docker

from tests.cluster.programs import cache

_DATABASES = ("io.containerd.metadata.v1.bolt/meta.db", "io.containerd.snapshotter.v1.overlayfs/metadata.db")
_SECONDS = 600


def kept(wanted: str) -> Path:
    """Return where the images are kept that containerd had once it knew this one."""
    return cache() / "images" / wanted.removeprefix("sha256:")[:24]


def image_id() -> str:
    """Return the id of the image of `tests/setup/with_engine`; empty where the cluster was begun without it."""
    if "DEVGW_TEST_IMAGE" not in os.environ or "DOCKER_HOST" not in os.environ:
        return ""
    client = docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="auto", timeout=60)
    try:
        return str(client.inspect_image(os.environ["DEVGW_TEST_IMAGE"])["Id"])
    finally:
        client.close()


def seed(root: Path, wanted: str) -> None:
    """Give a containerd that does not run what was kept for an image, if anything."""
    if wanted and kept(wanted).is_dir():
        _link(kept(wanted), root)


def keep(root: Path, having: str) -> None:
    """Keep what a containerd has that does not run, under the image for which it was; nothing older stays."""
    place = kept(having)
    if place.is_dir():
        return
    shutil.rmtree(place.parent, ignore_errors=True)
    place.parent.mkdir(parents=True)
    _link(root, place.with_suffix(".partial"))
    place.with_suffix(".partial").rename(place)


def _link(source: Path, target: Path) -> None:
    """Make a tree of hard links in the place of what is there."""
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-al", str(source), str(target)], check=True, timeout=_SECONDS)
    for name in _DATABASES:
        (target / name).unlink()
        shutil.copy2(source / name, target / name)
