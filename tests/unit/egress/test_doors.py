"""The sockets through which environments come: who may open them, and that they are there when they should be."""

import asyncio
import os
from pathlib import Path

import pytest

from gateway.egress.doors import Doors, Place, open_listener
from gateway.egress.proxy_request import ClientSide
from gateway.model import EnvironmentRef

ALICE, BOB = EnvironmentRef.parse("alice"), EnvironmentRef.parse("bob")


def place(directory: Path) -> Place:
    directory.mkdir(exist_ok=True, parents=True)
    return Place(directory, 54_321, 54_322)


async def say_who(ref: EnvironmentRef, near: ClientSide) -> None:
    near.writer.write(str(ref).encode())
    near.writer.close()


async def knock(directory: Path) -> bytes:
    reader, writer = await asyncio.open_unix_connection(directory / "egress.sock")
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


def test_a_door_is_its_users_alone_and_replaces_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / "egress.sock").write_text("something else")
    with open_listener(place(tmp_path)):
        found = (tmp_path / "egress.sock").lstat()
    assert oct(found.st_mode) == "0o140600"
    if os.geteuid() == 0:
        assert (found.st_uid, found.st_gid) == (54_321, 54_322)


def test_a_place_whose_path_is_too_long_for_a_socket_has_a_door(tmp_path: Path) -> None:
    with open_listener(place(tmp_path / ("x" * 100) / ("y" * 100))):
        assert (tmp_path / ("x" * 100) / ("y" * 100) / "egress.sock").is_socket()


def test_a_link_in_place_of_the_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match="directory"):
        open_listener(Place(tmp_path / "link", 0, 0))
    assert list((tmp_path / "real").iterdir()) == []


@pytest.mark.attack("C18", "who asks for a host outside: the socket says it, whatever is sent through it")
def test_each_door_is_one_environments(tmp_path: Path) -> None:
    async def main() -> None:
        doors = Doors(say_who)
        await doors.keep({ALICE: place(tmp_path / "a"), BOB: place(tmp_path / "b")})
        assert (await knock(tmp_path / "a"), await knock(tmp_path / "b")) == (b"alice", b"bob")
        doors.close()
        assert not (tmp_path / "a" / "egress.sock").exists()

    asyncio.run(main())


def test_a_door_that_was_removed_comes_again_once_it_is_known_to_be_wanted_still(tmp_path: Path) -> None:
    """Its environment may be on the way out: nothing is made in a directory that is being removed."""

    async def main() -> None:
        doors, wanted = Doors(say_who), {ALICE: place(tmp_path / "a")}
        assert await doors.keep(wanted)
        (tmp_path / "a" / "egress.sock").unlink()
        assert not await doors.keep(wanted)
        assert not (tmp_path / "a" / "egress.sock").exists()
        assert await doors.keep(wanted)
        assert await knock(tmp_path / "a") == b"alice"
        assert await doors.keep({})
        assert not (tmp_path / "a" / "egress.sock").exists()

    asyncio.run(main())
