"""The web half's line to the desk: what its users are told when the desk is gone."""

import asyncio
import json
import socket

import pytest

from gateway.page.web.desk_line import GONE, DeskFault, DeskLine


async def fault_of(question: "asyncio.Task[object]") -> str:
    with pytest.raises(DeskFault) as caught:
        await asyncio.wait_for(question, 20)
    return caught.value.fault["code"]


def test_who_waits_when_the_desk_dies_is_told_so_and_so_is_who_comes_after() -> None:
    """Nobody waits for ever, and nobody reads of an error that nothing explains."""

    async def main() -> tuple[str, str]:
        here, there = socket.socketpair()
        line = DeskLine(here)
        running = asyncio.create_task(line.run())
        reader, writer = await asyncio.open_connection(sock=there)
        waiting = asyncio.create_task(line.ask("claim", "viewer.enter", {}))
        asked = json.loads(await asyncio.wait_for(reader.readline(), 20))
        assert (asked["ask"], asked["live"]) == ("viewer.enter", False)
        writer.close()
        await asyncio.wait_for(running, 20)
        later = asyncio.create_task(line.ask("claim", "runs.mine", {}, live=True))
        return await fault_of(waiting), await fault_of(later)

    assert asyncio.run(main()) == (GONE["code"], GONE["code"])


def test_an_answer_reaches_who_asked() -> None:
    async def main() -> object:
        here, there = socket.socketpair()
        line = DeskLine(here)
        running = asyncio.create_task(line.run())
        reader, writer = await asyncio.open_connection(sock=there)
        waiting = asyncio.create_task(line.ask("claim", "runs.mine", {}))
        number = json.loads(await asyncio.wait_for(reader.readline(), 20))["number"]
        writer.write(json.dumps({"number": number, "answer": [7]}).encode() + b"\n")
        answer = await asyncio.wait_for(waiting, 20)
        writer.close()
        await asyncio.wait_for(running, 20)
        return answer

    assert asyncio.run(main()) == [7]
