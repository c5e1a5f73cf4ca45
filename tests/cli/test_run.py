"""`devgw run` where no program can start: what is decided, written down, and returned."""

from pathlib import Path

from gateway.audit.read import stream
from gateway.audit.record import Record
from tests.cli.site import Site

_WITHOUT_COMMANDS = """
version = 1
default_roles = ["member"]
[roles.member]
sessions = ["shell"]
"""


def records(directory: Path) -> dict[str, Record]:
    """The last record of each code."""
    return {record.code: record for record in stream(directory / "state" / "journal")}


def test_a_user_who_may_not_run_commands_has_none_run_for_them(site: Site) -> None:
    """The policy is asked for the user, the refusal names the administrator, and its exit code is 5."""
    site.run("devgw init -q")
    site.run("devgw create alice --key alice.pub -q")
    (site.directory / "config" / "policy.toml").write_text(_WITHOUT_COMMANDS)
    outcome = site.run("devgw run alice -- train.py")
    assert outcome.exit_code == 5
    assert "no role permits 'exec' sessions" in outcome.stderr
    found = records(site.directory)
    assert found["session.denied"].actor["kind"] == "admin"
    assert found["session.denied"].environment == "alice"
    assert "session.opened" not in found


def test_an_environment_that_lets_nobody_in_is_125_and_its_end_is_written_down(site: Site) -> None:
    """What answers is no sshd: a failure of devgw's own, with a beginning and an end in the journal."""
    site.run("devgw init -q")
    site.run("devgw create alice --key alice.pub -q")
    outcome = site.run("devgw run alice --detach -- train.py --batch-size 256")
    assert outcome.exit_code == 125
    assert "alice does not let the gateway in" in outcome.stderr
    found = records(site.directory)
    assert found["session.opened"].detail["command"] == "devgw-run --detach train.py --batch-size 256"
    assert found["session.closed"].detail["exit_code"] is None
