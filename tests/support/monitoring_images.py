"""Images of Debian's Prometheus and node_exporter, under the names that docs/monitoring/compose.yaml asks for.

No registry is asked: the real programs of this machine with the libraries that they load, laid out as in the makers'
own images. An engine that has the makers' images uses those, and they stay.
"""

import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import docker

NOBODY = 65534
_PROGRAMS = {"prom/prometheus": "prometheus", "prom/node-exporter": "prometheus-node-exporter"}
_PLACES = {"prom/prometheus": "/bin/prometheus", "prom/node-exporter": "/bin/node_exporter"}


@contextmanager
def images(client: docker.APIClient, names: Mapping[str, str]) -> Iterator[None]:
    """Have the images of services, by service; what was made for it goes afterwards."""
    there = {tag for image in client.images() for tag in image["RepoTags"] or ()}
    made = [name for name in names.values() if name not in there]
    try:
        for name in made:
            _make(client, name)
        yield
    finally:
        for name in made:
            client.remove_image(name, force=True)


def _make(client: docker.APIClient, name: str) -> None:
    repository, _, tag = name.partition(":")
    place = _PLACES[repository]
    changes = [f'ENTRYPOINT ["{place}"]', f"USER {NOBODY}", "WORKDIR /prometheus"]
    client.import_image_from_data(_tree(_PROGRAMS[repository], place), repository, tag, changes)


def _tree(program: str, place: str) -> bytes:
    """Return a tar of a program, its libraries and a directory that is nobody's own."""
    found = shutil.which(program)
    assert found is not None, f"{program} is not installed"
    linked = subprocess.run(["ldd", found], capture_output=True, text=True, timeout=60, check=False).stdout
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", dereference=True) as tar:
        tar.add(found, place.lstrip("/"))
        for library in re.findall(r"(/\S+) \(0x", linked):
            tar.add(Path(library).resolve(), library.lstrip("/"))
        passwd = f"root:x:0:0::/:/\nnobody:x:{NOBODY}:{NOBODY}::/:/\n".encode()
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(passwd)
        tar.addfile(entry, io.BytesIO(passwd))
        for directory, mode in (("prometheus", 0o755), ("tmp", 0o1777)):
            own = tarfile.TarInfo(directory)
            own.type, own.mode, own.uid, own.gid = tarfile.DIRTYPE, mode, NOBODY, NOBODY
            tar.addfile(own)
    return packed.getvalue()
