"""The page's keeper: it listens before anybody comes, starts the process then, and says so where that fails."""

import asyncio
import socket
import textwrap
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from gateway.background.watchdog import Watchdog
from gateway.config import Settings
from gateway.config.sections import PageSettings
from gateway.policy import LoadedPolicy, PolicyInForce
from gateway.process import own_process
from gateway.process.page_child import PageChild
from policies.load import parse_policy
from tests.support.gateway_process import poll

POLICY = "version = 1\n"
SERVES = """
    import socket, sys
    assert sys.stdin.readline() and sys.stdin.readline()
    listening = socket.socket(fileno=int(sys.argv[2]))
    listening.setblocking(True)
    with open({said!r}, "a") as out: out.write("began, uid " + sys.argv[3] + ", idle " + sys.argv[4] + "\\n")
    while True:
        client, _ = listening.accept()
        asked = client.recv(100)
        client.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
        client.close()
        if b"/end" in asked: sys.exit(0)
        if b"/fail" in asked: sys.exit(3)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A process that answers, ends when asked to, and writes down each beginning."""
    said = tmp_path / "said"
    (tmp_path / "stand_in_for_page.py").write_text(textwrap.dedent(SERVES.format(said=str(said))))
    monkeypatch.setattr(own_process, "MODULE", "stand_in_for_page")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    said.touch()
    return said


def keep(root: Path, steps: Callable[[Path], Awaitable[None]], page: PageSettings | None = None) -> None:
    """Run the keeper under a watchdog beside some steps."""
    chosen = Settings(
        config_dir=root, state_dir=root, run_dir=root / "run", cache_dir=root, page=page or PageSettings()
    )
    policy = PolicyInForce(root / "policy.toml")
    policy.adopt(LoadedPolicy(POLICY, parse_policy(POLICY, "tried.toml")))

    async def main() -> None:
        child = PageChild(chosen, policy)
        keeper = asyncio.create_task(Watchdog(first_wait_seconds=1.0).keep("the page", child.run))
        async with asyncio.timeout(60):
            await asyncio.to_thread(poll, chosen.page_socket.exists, "the socket")
            await steps(chosen.page_socket)
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)

    asyncio.run(main())
    assert not chosen.page_socket.exists()


def beginnings(said: Path) -> int:
    return said.read_text().count("began")


async def ask(path: Path, word: bytes) -> bytes:
    """Connect and send a request; return what comes back."""

    def go() -> bytes:
        with closing(socket.socket(socket.AF_UNIX)) as client:
            client.settimeout(30)
            client.connect(str(path))
            client.sendall(b"GET /" + word + b" HTTP/1.1\r\n\r\n")
            return client.recv(4096)

    return await asyncio.to_thread(go)


def test_who_comes_first_starts_it_and_is_answered(tmp_path: Path, stand_in: Path) -> None:
    """Nothing runs before; one that ended because nobody came is begun again by the next."""

    async def steps(path: Path) -> None:
        assert beginnings(stand_in) == 0
        assert b"200" in await ask(path, b"hello")
        assert b"200" in await ask(path, b"end")
        assert b"200" in await ask(path, b"again")
        assert beginnings(stand_in) == 2

    keep(tmp_path, steps)


def test_who_comes_while_a_broken_one_is_begun_again_reads_that(tmp_path: Path, stand_in: Path) -> None:
    """With a page that asks again by itself; then it answers."""

    async def steps(path: Path) -> None:
        assert b"200" in await ask(path, b"fail")
        seen = set()
        while b"200" not in seen:
            seen.add((await ask(path, b"hello"))[9:12])
        assert seen == {b"200", b"503"}
        assert beginnings(stand_in) == 2

    keep(tmp_path, steps)


@pytest.mark.parametrize(
    ("page", "told"),
    [(PageSettings(idle_stop=70, uid=5000), "uid 5000, idle 70"), (PageSettings(keep_running=True), "idle 0")],
)
def test_the_process_is_told_when_to_rest(tmp_path: Path, stand_in: Path, page: PageSettings, told: str) -> None:
    async def steps(path: Path) -> None:
        assert b"200" in await ask(path, b"hello")

    keep(tmp_path, steps, page)
    assert told in stand_in.read_text()


def test_one_that_is_kept_running_is_there_before_anybody_comes(tmp_path: Path, stand_in: Path) -> None:
    """And is begun again without anybody when it ends."""

    async def steps(path: Path) -> None:
        await asyncio.to_thread(poll, lambda: beginnings(stand_in) == 1, "the beginning")
        assert b"200" in await ask(path, b"end")
        await asyncio.to_thread(poll, lambda: beginnings(stand_in) == 2, "the next")

    keep(tmp_path, steps, PageSettings(keep_running=True))
