"""The process for hosts by name: there while the policy names any, told of each policy, gone with its parent."""

import asyncio
import json
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.config import Settings
from gateway.policy import LoadedPolicy, PolicyInForce
from gateway.process import egress_child
from gateway.process.egress_child import EgressChild, names_hosts
from policies.load import DEFAULT_POLICY, load_policy, parse_policy

HELD = "version = 1\ndefault_roles = ['m']\n[roles.m]\negress_hosts = ['pypi.org']\n"
NONE = "version = 1\n"


def loaded(text: str) -> LoadedPolicy:
    return LoadedPolicy(text, parse_policy(text, "tried.toml"))


def settings(root: Path) -> Settings:
    return Settings(config_dir=root, state_dir=root, run_dir=root, cache_dir=root)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (HELD, True),
        (NONE, False),
        ("version = 1\n[roles.m]\negress_hosts = ['pypi.org']\n", False),
        ("version = 1\n[roles.m]\negress_hosts = ['pypi.org']\n[[grants]]\nusers = ['a']\nroles = ['m']\n", True),
    ],
)
def test_a_role_that_nobody_holds_starts_nothing(text: str, names: bool) -> None:
    assert names_hosts(parse_policy(text, "tried.toml")) is names


def test_the_shipped_policy_starts_nothing() -> None:
    assert not names_hosts(load_policy(DEFAULT_POLICY))


def test_settings_survive_the_way_to_the_process(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    assert Settings.model_validate_json(json.dumps(chosen.model_dump(mode="json"))) == chosen


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A process that writes down each order, `end` when its orders end, and ends itself at `exit`."""
    said = tmp_path / "said"
    code = f"""
        import json, sys
        with open({str(said)!r}, "a", buffering=1) as out:
            for line in sys.stdin:
                order = json.loads(line)
                said = "settings" if "server" in order else order["text"].split("#")[-1].strip()
                out.write(said + "\\n")
                if said == "exit": sys.exit(3)
            out.write("end\\n")
    """
    (tmp_path / "stand_in_for_egress.py").write_text(textwrap.dedent(code))
    monkeypatch.setattr(egress_child, "MODULE", "stand_in_for_egress")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    said.touch()
    return said


def follow(
    policy: PolicyInForce, root: Path, steps: Callable[[], Awaitable[None]], *, ends_by_itself: bool = False
) -> BaseException | None:
    """Run the keeper beside some steps; return how it ended."""

    async def main() -> BaseException | None:
        keeper = asyncio.create_task(EgressChild(settings(root), policy).run())
        async with asyncio.timeout(60):
            await steps()
            if ends_by_itself:
                await asyncio.wait({keeper})
        keeper.cancel()
        [ended] = await asyncio.gather(keeper, return_exceptions=True)
        return ended if isinstance(ended, BaseException) else None

    return asyncio.run(main())


async def said_by(file: Path, lines: list[str]) -> None:
    while file.read_text().splitlines() != lines:  # noqa: ASYNC110, ASYNC240 - another process writes it
        await asyncio.sleep(0.05)


def test_it_is_told_of_each_policy_and_ends_with_the_last_host(tmp_path: Path, stand_in: Path) -> None:
    policy = PolicyInForce(tmp_path / "policy.toml")
    policy.adopt(loaded(HELD + "# one"))

    async def steps() -> None:
        await said_by(stand_in, ["settings", "one"])
        policy.adopt(loaded(HELD + "# two"))
        await said_by(stand_in, ["settings", "one", "two"])
        policy.adopt(loaded(NONE))
        await said_by(stand_in, ["settings", "one", "two", "end"])
        policy.adopt(loaded(HELD + "# three"))
        await said_by(stand_in, ["settings", "one", "two", "end", "settings", "three"])

    assert isinstance(follow(policy, tmp_path, steps), asyncio.CancelledError)
    assert stand_in.read_text().splitlines()[-1] == "end"


def test_its_end_is_an_error_that_the_watchdog_sees(tmp_path: Path, stand_in: Path) -> None:
    policy = PolicyInForce(tmp_path / "policy.toml")
    policy.adopt(loaded(HELD + "# exit"))

    async def steps() -> None:
        await said_by(stand_in, ["settings", "exit"])

    ended = follow(policy, tmp_path, steps, ends_by_itself=True)
    assert str(ended) == "the process for hosts by name ended with 3"
