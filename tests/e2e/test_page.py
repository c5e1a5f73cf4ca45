"""The page through a real `ssh -L`: the SSH login is the login, and what each level sees and may do."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.support.gateway_process import GatewayProcess
from tests.support.page_site import add, begin, browser, records


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    served = begin(tmp_path_factory.mktemp("gw"))
    try:
        yield served
    finally:
        served.stop()


def test_the_ssh_login_is_the_login(gateway: GatewayProcess) -> None:
    """The plain address leads to the own environments, and to nobody else's."""
    with browser(gateway, "alice") as alice:
        answer = alice.get("/")
        assert answer.status_code == 200
        assert answer.url == f"{alice.origin}/"
        assert "<h1>Your environments</h1>" in answer.text
        assert "alice" in answer.text
        assert "bob" not in answer.text


@pytest.mark.emits("page.allowed", "user.disabled", "user.enabled")
def test_an_act_of_an_administrator_is_the_command_lines_own(gateway: GatewayProcess) -> None:
    """It is decided, done and journaled with the person's own name, key and address."""
    add(gateway, "dave")
    with browser(gateway, "carol") as carol:
        assert "dave" in carol.get("/people").text
        done = carol.post("/people/dave/disable")
        assert done.url == f"{carol.origin}/people"
        assert "dave is shut out" in done.text
        assert "dave is shut out" not in carol.get("/people").text
        assert gateway.ssh("dave", "true").returncode == 255
        assert carol.post("/people/dave/enable").status_code == 200
    allowed = records(gateway, "page.allowed")[0]
    disabled = records(gateway, "user.disabled")[0]
    for record in (allowed, disabled):
        actor = record["actor"]
        assert (actor["kind"], actor["name"], actor["address"]) == ("user", "carol", "127.0.0.1")
        assert actor["key"].startswith("SHA256:")
    assert (allowed["detail"]["act"], allowed["detail"]["target"]) == ("people.disable", "user=dave")
    assert allowed["rule"].startswith("roles.administrator.page (policy.toml:")


@pytest.mark.emits("page.denied")
@pytest.mark.parametrize("user", ["alice", "bob"])
def test_what_a_level_does_not_hold_is_refused_and_written_down(gateway: GatewayProcess, user: str) -> None:
    """The menu does not have it, the address does not open it, and the form does nothing."""
    with browser(gateway, user) as one:
        assert "/people" not in one.get("/").text
        shown = one.get("/people")
        assert shown.status_code == 403
        assert "no role gives the page of an administrator" in shown.text
        assert one.post("/people/carol/disable").status_code == 403
    denied = [record for record in records(gateway, "page.denied") if record["actor"]["name"] == user]
    assert {record["detail"]["target"] for record in denied} == {"/people", "/people/carol/disable"}
    with browser(gateway, "carol") as carol:
        assert carol.get("/").status_code == 200


def test_a_role_without_the_page_reaches_nothing(gateway: GatewayProcess) -> None:
    """A denial counts whatever another role gives."""
    *command, destination = gateway.ssh_command("mallory")
    refused = subprocess.run([*command, "-W", "devgw:80", destination], capture_output=True, timeout=60, check=False)
    assert (refused.returncode, refused.stdout) == (255, b"")
    [denied] = [one for one in records(gateway, "forward.denied") if one["detail"]["port"] == 80]
    assert denied["rule"].startswith("roles.no-page.deny.permit_open (policy.toml:")


def test_a_user_acts_on_their_own_environment_only(gateway: GatewayProcess) -> None:
    """What is named in the address is always one of the viewer's own."""
    with browser(gateway, "alice") as alice:
        done = alice.post("/environments/main/password")
        assert "It is shown this once" in done.text
        assert alice.post("/environments/bob/stop").status_code == 404
        assert alice.post("/environments/bob%2Bmain/stop").status_code == 400
    changed = records(gateway, "password.changed")
    assert [(one["environment"], one["actor"]["name"]) for one in changed] == [("alice", "alice")]
