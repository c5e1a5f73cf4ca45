"""The directory of prepared roots on a file system without a free byte: nothing half-made, and images make room."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.engines.bubblewrap.image_store import RootStore
from gateway.engines.bubblewrap.software import PreparedRoots
from gateway.engines.interface import ignore_progress
from gateway.errors import EngineError
from tests.support.small_disk import KINDS, SmallDisk, small_disk

pytestmark = pytest.mark.engine
NAME = "devgw/trial:1"


@pytest.fixture(params=KINDS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path, 24, request.param) as made:
        yield made


def archive(mebibytes: int) -> io.BytesIO:
    """Return a prepared root with a file of that size."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in (
            ("root.json", json.dumps({"command": ["/bin/true"]}).encode()),
            ("tree/file", b"\1" * (mebibytes << 20)),
        ):
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    packed.seek(0)
    return packed


def files(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*") if path.name != ".lock"}


def test_an_image_that_does_not_fit_leaves_nothing(disk: SmallDisk) -> None:
    """While the archive is written, while it is unpacked, and while its manifest is; with room it comes in."""
    store = RootStore(PreparedRoots(disk.path / "roots"))
    kept = store.load(archive(1), ignore_progress)
    before = files(disk.path / "roots")
    for left_mebibytes in (0, 3, 7):
        fill = disk.fill()
        with fill.open("r+b") as file:
            file.truncate(fill.stat().st_size - (left_mebibytes << 20))
        with pytest.raises(EngineError) as refused:
            store.load(archive(4), ignore_progress)
        assert refused.value.code == "image.import-failed"
        assert files(disk.path / "roots") == before
        fill.unlink()
    assert {one.digest for one in store.all()} == {kept.digest}
    store.load(archive(4), ignore_progress)
    assert len(store.all()) == 2


def test_an_image_is_removed_on_a_full_disk_and_makes_room(disk: SmallDisk) -> None:
    """Before anything has to be written; what led to it leads nowhere."""
    roots = PreparedRoots(disk.path / "roots")
    store = RootStore(roots)
    image = store.load(archive(4), ignore_progress)
    store.name(image.digest, NAME)
    disk.fill()
    assert disk.free_bytes == 0
    store.remove(image.digest)
    assert disk.free_bytes > 3 << 20
    assert store.all() == []
    assert roots.place_of(NAME) is None


def test_a_name_on_a_full_disk_is_refused_and_the_names_stay(disk: SmallDisk) -> None:
    roots = PreparedRoots(disk.path / "roots")
    store = RootStore(roots)
    image = store.load(archive(1), ignore_progress)
    store.name(image.digest, NAME)
    fill = disk.fill()
    with pytest.raises(EngineError, match="its disk is full") as refused:
        store.name(image.digest, f"devgw/{'long' * 60}:2")
    assert refused.value.code == "engine.no-space"
    assert "devgw image prune" in refused.value.hint
    fill.unlink()
    assert next(one for one in store.all() if one.digest == image.digest).names == (NAME,)
    assert not [path for path in (disk.path / "roots").iterdir() if path.name.startswith(".names")]
