"""What a daemon says of its images."""

from pathlib import Path

from gateway.engines.docker.image_store import DockerImageStore
from tests.fakes.docker_daemon import scripted_daemon


def test_images_have_the_names_that_people_gave_them(tmp_path: Path) -> None:
    """Podman writes the registry out: `NAME@sha256:…` would not be taken for the image of that name."""
    with scripted_daemon(tmp_path) as daemon:
        tags = ["docker.io/devgw/trial:1", "docker.io/library/devgw:cpu", "gitlab.example.org/a:1", "<none>:<none>"]
        daemon.answers["GET /images"] = (200, [{"Id": "sha256:1", "RepoTags": tags, "Labels": None}])
        [found] = DockerImageStore(daemon.url).all()
    assert sorted(found.names) == ["devgw/trial:1", "devgw:cpu", "gitlab.example.org/a:1"]
