"""Disks as images with real mounts: full for one alone, grown, moved into, whole after an end at any step."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.environments import disk_image, disk_mounts, image_disks
from gateway.environments.disk_image import may_grow_mounted
from gateway.environments.disk_limit import LEAST_BYTES
from gateway.environments.disks import Disks
from gateway.environments.layout import Layout
from gateway.errors import ConflictError, DevgwError, StoreError
from gateway.model import EnvironmentRef

pytestmark = pytest.mark.engine
ALICE, BOB = EnvironmentRef.parse("alice"), EnvironmentRef.parse("bob")
MIB = 2**20


class Cut(BaseException):
    """What kill -9 is: no handler of the code sees it."""


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Disks]:
    found = Disks(tmp_path)
    yield found
    for ref in (ALICE, BOB):
        found.remove(ref)
    assert traces(tmp_path) == ""


def traces(place: Path) -> str:
    """Return mounts and loop devices that are left of a test."""
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(place) in line]
    loops = subprocess.run(["losetup", "--list"], capture_output=True, text=True, check=True, timeout=20).stdout
    return "\n".join(mounts + [line for line in loops.splitlines() if str(place) in line])


def volumes(place: Path, ref: EnvironmentRef = ALICE) -> Path:
    layout = Layout.of(place, ref)
    layout.make(os.getuid(), os.getgid())
    return layout.volumes


def fill(file: Path) -> int:
    """Write until nothing more goes in; return the error."""
    with file.open("wb", buffering=0) as out:
        try:
            while True:
                out.write(b"\1" * MIB)
        except OSError as exc:
            return exc.errno or 0


def make_files(directory: Path, count: int) -> None:
    for number in range(count):
        (directory / str(number)).touch()


def test_a_full_disk_is_full_for_its_owner_alone(made: Disks, tmp_path: Path) -> None:
    """Alice gets ENOSPC, bob and what lies beside them do not; what she removes she has again."""
    for ref in (ALICE, BOB):
        made.prepare(ref, LEAST_BYTES)
        volumes(tmp_path, ref)
    alices, bobs = volumes(tmp_path, ALICE), volumes(tmp_path, BOB)
    assert fill(alices / "home/fill") == errno.ENOSPC
    with pytest.raises(OSError, match="No space"):
        (alices / "checkpoints/more").write_bytes(b"x" * MIB)
    (bobs / "home/file").write_bytes(b"x" * MIB)
    (tmp_path / "journal").write_bytes(b"x" * MIB)
    found = made.use(ALICE)
    assert found is not None
    assert found.percent >= 99
    (alices / "home/fill").unlink()
    (alices / "home/file").write_bytes(b"x" * MIB)


def test_many_small_files_fill_it_too(made: Disks, tmp_path: Path) -> None:
    """Inodes end before bytes do, and the use says so."""
    made.prepare(ALICE, LEAST_BYTES)
    home = volumes(tmp_path) / "home"
    with pytest.raises(OSError, match="No space"):
        make_files(home, 100_000)
    found = made.use(ALICE)
    assert found is not None
    assert found.used_bytes < found.size_bytes // 2
    assert found.percent >= 99


def test_its_room_is_set_aside_when_it_is_made(made: Disks, tmp_path: Path) -> None:
    """So a host that is full afterwards takes nothing of it; the image is the gateway's alone."""
    made.prepare(ALICE, LEAST_BYTES)
    found = made.image(ALICE).stat()
    assert (found.st_size, found.st_mode & 0o777) == (LEAST_BYTES, 0o600)
    assert found.st_blocks * 512 >= LEAST_BYTES
    options = next(line for line in Path("/proc/mounts").read_text().splitlines() if str(tmp_path) in line).split()[3]
    assert {"nosuid", "nodev"} <= set(options.split(","))


def test_it_grows_while_it_is_in_use_where_the_kernel_lets_us(made: Disks, tmp_path: Path) -> None:
    """Where CAP_SYS_RESOURCE is missing it is refused with the reason, and grows while its environment is stopped."""
    made.prepare(ALICE, LEAST_BYTES)
    home = volumes(tmp_path) / "home"
    (home / "file").write_text("hers")
    if may_grow_mounted():
        with (home / "open").open("wb") as held:
            made.grow(ALICE, 2 * LEAST_BYTES, in_use=True)
            held.write(b"x" * (LEAST_BYTES + MIB))
    else:
        with pytest.raises(ConflictError, match="CAP_SYS_RESOURCE") as refused:
            made.grow(ALICE, 2 * LEAST_BYTES, in_use=True)
        assert refused.value.code == "environment.running"
        assert made.is_mounted(ALICE)
        made.grow(ALICE, 2 * LEAST_BYTES, in_use=False)
    found = made.use(ALICE)
    assert found is not None
    assert found.size_bytes > LEAST_BYTES
    assert (home / "file").read_text() == "hers"


def test_it_never_shrinks_and_says_the_numbers(made: Disks, tmp_path: Path) -> None:
    made.prepare(ALICE, 2 * LEAST_BYTES)
    (volumes(tmp_path) / "home/file").write_bytes(b"x" * 5 * MIB)
    with pytest.raises(ConflictError, match=r"has 128MiB, [5-9]MiB of them used: it cannot be made 64MiB") as refused:
        made.grow(ALICE, LEAST_BYTES, in_use=True)
    assert refused.value.code == "disk.no-shrink"
    assert made.size(ALICE) == 2 * LEAST_BYTES


def test_more_than_the_host_has_is_refused_with_numbers(made: Disks, tmp_path: Path) -> None:
    """And nothing is left, nor has an image grown."""
    with pytest.raises(ConflictError, match="do not fit") as refused:
        made.prepare(ALICE, 2**60)
    assert refused.value.code == "disk.no-room"
    made.release(ALICE)
    assert not (tmp_path / "disks/alice").exists()
    made.prepare(ALICE, LEAST_BYTES)
    with pytest.raises(ConflictError, match="do not fit"):
        made.grow(ALICE, 2**60, in_use=False)
    assert made.size(ALICE) == LEAST_BYTES


def test_a_damaged_image_is_named_and_not_mounted(made: Disks, tmp_path: Path) -> None:
    """Nobody starts with an empty home in its place."""
    made.prepare(ALICE, LEAST_BYTES)
    (volumes(tmp_path) / "home/file").write_text("hers")
    made.unmount(ALICE)
    with made.image(ALICE).open("r+b") as image:
        image.write(b"\0" * 4096)
    with pytest.raises(StoreError, match="damaged") as refused:
        made.prepare(ALICE, LEAST_BYTES)
    assert refused.value.code == "disk.damaged"
    assert "e2fsck -f" in refused.value.hint
    assert not made.is_mounted(ALICE)


def test_files_that_were_there_move_onto_it(made: Disks, tmp_path: Path) -> None:
    """With owner and mode; what does not fit is refused before anything moves."""
    home = volumes(tmp_path) / "home"
    (home / "file").write_text("hers")
    (home / "file").chmod(0o640)
    (home / "large").write_bytes(b"x" * 2 * LEAST_BYTES)
    with pytest.raises(ConflictError, match="do not fit") as refused:
        made.grow(ALICE, LEAST_BYTES, in_use=False)
    assert refused.value.code == "disk.too-small"
    assert (home / "file").read_text() == "hers"
    (home / "large").unlink()
    made.grow(ALICE, LEAST_BYTES, in_use=False)
    assert made.is_mounted(ALICE)
    assert ((home / "file").read_text(), (home / "file").stat().st_mode & 0o777) == ("hers", 0o640)
    assert sorted(path.name for path in (tmp_path / "disks/alice/main").iterdir()) == ["image"]


def test_an_image_is_kept_with_files_and_goes_without(made: Disks, tmp_path: Path) -> None:
    """What a create that failed has made is not left; what somebody wrote is."""
    made.prepare(ALICE, LEAST_BYTES)
    volumes(tmp_path)
    made.release(ALICE)
    assert not (tmp_path / "disks/alice").exists()
    assert not (tmp_path / "volumes/alice").exists()
    made.prepare(ALICE, LEAST_BYTES)
    (volumes(tmp_path) / "home/file").write_text("hers")
    made.release(ALICE)
    assert not made.is_mounted(ALICE)
    Disks(tmp_path).prepare(ALICE, 0)
    assert (volumes(tmp_path) / "home/file").read_text() == "hers"


@pytest.fixture
def unmounted(tmp_path: Path) -> Iterator[None]:
    """Leave no mount of a test that fails in the middle."""
    yield
    for place in tmp_path.iterdir():
        Disks(place).remove(ALICE)


@pytest.mark.usefixtures("unmounted")
@pytest.mark.parametrize("has_files", [False, True])
def test_an_end_at_any_step_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_files: bool) -> None:
    """Made or moved into, grown, released, removed: whatever comes next finds every file, and nothing is left over."""
    for at in range(100):
        place = tmp_path / str(at)
        found = Disks(place)
        place.mkdir()
        if has_files:
            (volumes(place) / "home/file").write_text("hers")
        with monkeypatch.context() as patch:
            steps = cut_at(patch, at)
            try:
                found.grow(ALICE, LEAST_BYTES, in_use=False)
                found.grow(ALICE, 2 * LEAST_BYTES, in_use=False)
                if not has_files:
                    (volumes(place) / "home/file").write_text("hers")
                found.release(ALICE)
                whole = True
            except Cut:
                whole = False
        after = Disks(place)
        after.prepare(ALICE, 0)  # a start before the size is stored
        if has_files:
            assert (volumes(place) / "home/file").read_text() == "hers", at
        after.grow(ALICE, 2 * LEAST_BYTES, in_use=False)
        if has_files or whole:
            assert (volumes(place) / "home/file").read_text() == "hers", at
        assert sorted(path.name for path in (place / "disks/alice/main").iterdir()) == ["image"], at
        use = after.use(ALICE)
        assert use is not None
        assert use.size_bytes > LEAST_BYTES
        with monkeypatch.context() as patch:
            cut_at(patch, at % 4)
            with suppress(Cut):
                after.remove(ALICE)
        Disks(place).remove(ALICE)
        assert traces(place) == ""
        assert not (place / "disks/alice").exists()
        if whole:
            assert steps[0] > 8
            return
    pytest.fail("it never got through")


def cut_at(patch: pytest.MonkeyPatch, at: int) -> list[int]:
    """Have every program, rename and removal be a step, and end before the one of that number."""
    steps = [0]

    def stepped(name: str, module: object, attribute: str) -> None:
        real = getattr(module, attribute)

        def run(*arguments: object, **options: object) -> object:
            if steps[0] == at:
                raise Cut(name)
            steps[0] += 1
            return real(*arguments, **options)

        patch.setattr(module, attribute, run)

    for module in (disk_image, disk_mounts, image_disks):
        stepped("program", module, "run_program")
    stepped("removal", image_disks, "remove_tree")
    stepped("rename", Path, "rename")
    return steps


def test_without_root_nothing_is_made_and_it_says_so(tmp_path: Path) -> None:
    """An environment starts all the same; one whose files are in an image does not start without them."""
    found = Disks(tmp_path, why_not=lambda: "the gateway is not root")
    found.prepare(ALICE, LEAST_BYTES)
    assert not (tmp_path / "disks").exists()
    found.image(ALICE).parent.mkdir(parents=True)
    found.image(ALICE).touch()
    with pytest.raises(DevgwError, match="not root") as refused:
        found.prepare(ALICE, LEAST_BYTES)
    assert refused.value.code == "disk.not-root"
